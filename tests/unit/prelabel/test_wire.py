"""Both kinds of answer columns, and what does not fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prelabel.errors import RemoteError
from prelabel.predictions import PredictionBatch
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.wire import predict_request, predict_response, prediction_batch

PIXELS = np.zeros((2, 4, 4, 1), np.uint8)
BATCH = PredictionBatch(
    np.array([[0.25, 0.75], [np.nan, np.nan]], np.float32), np.array([0.5, np.nan], np.float32), "model", {1: "broken"}
)


def old_request() -> pb.PredictRequest:
    """A request of a client that knows no raw columns."""
    request = predict_request(PIXELS, "bulk", request_id="7")
    request.ClearField("raw_answers")
    return request


def test_our_request_is_answered_in_raw_columns_only() -> None:
    response = predict_response(predict_request(PIXELS, "bulk", request_id="7"), BATCH)
    assert (response.request_id, response.model_id) == ("7", "model")
    assert np.frombuffer(response.probabilities_raw, "<f4")[:2].tolist() == [0.25, 0.75]
    assert np.frombuffer(response.realness_raw, "<f4")[0] == 0.5
    columns = (response.probabilities, response.realness, response.label_index, response.confidence)
    assert [len(column) for column in columns] == [0, 0, 0, 0]
    assert [(error.index, error.message) for error in response.errors] == [(1, "broken")]


def test_a_request_that_does_not_ask_for_raw_columns_is_answered_number_by_number() -> None:
    response = predict_response(old_request(), BATCH)
    assert (response.probabilities_raw, response.realness_raw) == (b"", b"")
    assert list(response.probabilities)[:2] == [0.25, 0.75]
    assert list(response.label_index) == [1, -1]
    assert response.confidence[0] == 0.75
    assert response.realness[0] == 0.5


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)),
    st.booleans(),
)
def test_both_columns_carry_every_bit_and_give_arrays_that_can_be_changed(
    probabilities: "np.typing.NDArray[np.float32]", raw: bool
) -> None:
    batch = PredictionBatch(probabilities, probabilities[:, 0].copy(), "model")
    request = predict_request(np.zeros((len(batch), 1, 1, 1), np.uint8), "bulk") if raw else old_request()
    response = pb.PredictResponse.FromString(predict_response(request, batch).SerializeToString())
    given = prediction_batch(response, len(batch))
    np.testing.assert_array_equal(given.probabilities, batch.probabilities)
    np.testing.assert_array_equal(given.realness, batch.realness)
    assert given.probabilities.dtype == given.realness.dtype == np.float32
    given.probabilities[0, 0] = given.realness[0] = 0.5


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (pb.PredictResponse(), "0 rows and 0 probabilities for 2 images"),
        (pb.PredictResponse(realness=[1.0], probabilities=[1.0] * 2), "1 rows and 2 probabilities"),
        (pb.PredictResponse(realness=[1.0] * 2, probabilities=[1.0] * 3), "2 rows and 3 probabilities"),
        (pb.PredictResponse(realness_raw=bytes(8), probabilities_raw=bytes(12)), "2 rows and 3 probabilities"),
        (pb.PredictResponse(realness_raw=bytes(12), probabilities_raw=bytes(16)), "3 rows and 4 probabilities"),
        (pb.PredictResponse(realness_raw=bytes(8), probabilities_raw=bytes(15)), "raw column of 15 bytes"),
        (pb.PredictResponse(probabilities_raw=bytes(16)), "0 rows and 4 probabilities"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_columns_that_do_not_make_up_the_rows_are_an_error(response: pb.PredictResponse, text: str) -> None:
    with pytest.raises(RemoteError, match=text):
        prediction_batch(response, 2)
