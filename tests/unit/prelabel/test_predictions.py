"""Columns of answers: failed rows are marked as such and never shift the others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.predictions import FAILED_LABEL, PredictionBatch, from_model, joined, with_failures

CLASSES = ("cat", "dog", "cow")


def batch_of(count: int, seed: int = 0) -> PredictionBatch:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(3), count).astype(np.float32).reshape(count, 3)
    return PredictionBatch(probabilities, generator.random(count, np.float32), "m")


def test_failures_of_the_model_alone_are_put_in_order_too() -> None:
    answers = batch_of(9)
    late = PredictionBatch(answers.probabilities, answers.realness, "m", {i: "late" for i in (0, 8, 2)})
    assert list(with_failures(late, {}, 9).errors) == [0, 2, 8]


@given(st.lists(st.booleans(), max_size=30), st.data())
def test_failures_keep_every_answer_at_its_place(good: list[bool], data: st.DataObject) -> None:
    answers = batch_of(sum(good))
    late = data.draw(st.sets(st.integers(0, max(sum(good) - 1, 0)), max_size=sum(good)))
    answers = PredictionBatch(answers.probabilities, answers.realness, "m", {i: f"late {i}" for i in late})
    whole = with_failures(answers, {i: f"early {i}" for i, ok in enumerate(good) if not ok}, len(good))
    assert len(whole) == len(good)
    assert whole.label_index.shape == whole.confidence.shape == whole.realness.shape == (len(good),)
    assert list(whole.errors) == sorted(whole.errors)
    answered = 0
    for i, (ok, row) in enumerate(zip(good, whole.rows(CLASSES), strict=True)):
        if not ok:
            assert row.error == f"early {i}"
        elif answered in late:
            assert row.error == f"late {answered}"
        else:
            assert row.error is None
            np.testing.assert_array_equal(list(row.probabilities.values()), answers.probabilities[answered])
            assert row.label == CLASSES[int(answers.probabilities[answered].argmax())]
            assert row.confidence == answers.probabilities[answered].max()
            assert row.realness == answers.realness[answered]
        if row.error is not None:
            assert row.label is None
            assert np.isnan([row.confidence, row.realness]).all()
            assert row.probabilities == {}
            assert whole.label_index[i] == FAILED_LABEL
        answered += ok


@pytest.mark.parametrize(("answers", "failed", "total"), [(1, {0}, 4), (3, {0}, 3), (2, {5}, 3), (2, set(), 3)])
def test_answers_that_do_not_make_up_the_batch_are_refused(answers: int, failed: set[int], total: int) -> None:
    with pytest.raises(ValueError, match=f"do not make up {total} items"):
        with_failures(batch_of(answers), dict.fromkeys(failed, "broken"), total)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_answers_that_are_no_numbers_become_errors(value: float) -> None:
    clean = batch_of(4)
    probabilities, realness = clean.probabilities.copy(), clean.realness.copy()
    probabilities[1, 2], realness[3] = value, value
    answer = from_model(probabilities, realness, "m")
    assert list(answer.errors) == [1, 3]
    assert all("not a number" in message for message in answer.errors.values())
    assert answer.label_index.tolist() == [clean.label_index[0], -1, clean.label_index[2], -1]
    assert np.isnan(answer.confidence[[1, 3]]).all()
    assert np.isnan(answer.realness[[1, 3]]).all()


def test_clean_answers_are_left_as_they_are() -> None:
    clean = batch_of(3)
    answer = from_model(clean.probabilities, clean.realness, "m")
    assert answer.probabilities is clean.probabilities
    assert answer.errors == {}


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.data())
def test_joined_answers_are_those_of_the_batches_in_order(sizes: list[int], data: st.DataObject) -> None:
    batches = []
    for seed, size in enumerate(sizes):
        failed = data.draw(st.sets(st.integers(0, size - 1)))
        one = batch_of(size, seed)
        batches.append(PredictionBatch(one.probabilities, one.realness, "m", {i: f"{seed}/{i}" for i in failed}))
    whole = joined(batches)
    # As text: NaN, which rows of failed items hold, is not equal to itself.
    assert list(map(repr, whole.rows(CLASSES))) == [repr(row) for batch in batches for row in batch.rows(CLASSES)]
