import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from prelabel.errors import InputError
from training.prior import class_prior
from training.step import estimated_prior

LABELS = np.array([0, 0, 0, 1], np.int32)


def test_the_four_ways_to_say_it() -> None:
    np.testing.assert_allclose(class_prior("balanced", ("a", "b"), LABELS), [0.5, 0.5])
    np.testing.assert_allclose(class_prior("estimated", ("a", "b"), LABELS), [0.5, 0.5])
    np.testing.assert_allclose(class_prior("labelled", ("a", "b"), LABELS), [0.75, 0.25])
    np.testing.assert_allclose(class_prior("9, 1", ("a", "b"), LABELS), [0.9, 0.1])


@pytest.mark.parametrize("text", ["", "even", "1", "1,2,3", "1,-1", "0,1", "nan,1", "inf,1", "1;2"])
def test_anything_else_is_named(text: str) -> None:
    with pytest.raises(InputError, match=r"--class-prior .*wanted"):
        class_prior(text, ("a", "b"), LABELS)


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=9))
def test_numbers_become_shares(values: list[float]) -> None:
    classes = tuple(map(str, range(len(values))))
    shares = class_prior(",".join(map(str, values)), classes, LABELS)
    assert shares.sum() == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(shares * sum(values), values, rtol=1e-4)


def test_an_estimated_prior_starts_balanced_and_ends_with_what_d_finds() -> None:
    start, found = tf.fill([3], 1 / 3), tf.constant([0.6, 0.3, 0.1])
    early, late = (estimated_prior(start, found, tf.constant(done)).numpy() for done in (0.1, 0.6))
    np.testing.assert_allclose(early, start, atol=1e-4)
    np.testing.assert_allclose(late, [0.6, 0.3, 0.1], atol=1e-4)
