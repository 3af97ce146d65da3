import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training import losses

logits_arrays = arrays(np.float32, (3, 5), elements=st.floats(-60, 60, width=32, allow_subnormal=False))


@given(logits_arrays)
@settings(deadline=None)
def test_realness_is_the_books_formula(logits: np.ndarray) -> None:
    exact = logits.astype(np.float64)
    book = 1.0 - 1.0 / (np.exp(exact).sum(axis=-1) + 1.0)
    np.testing.assert_allclose(losses.realness(tf.constant(logits)).numpy(), book, atol=1e-6)


@pytest.mark.parametrize("value", [1e4, 3e38, -1e4, -3e38])
def test_realness_does_not_overflow_where_the_books_formula_does(value: float) -> None:
    logits = tf.Variable([[value, value / 2, 0.0 if value > 0 else value]], dtype=tf.float32)
    with tf.GradientTape() as tape:
        loss = losses.unsupervised_loss(logits, logits) + losses.adversarial_loss(logits)
    assert np.isfinite(losses.realness(logits).numpy()).all()
    assert np.isfinite(tape.gradient(loss, logits).numpy()).all()


def test_unsupervised_loss_is_half_the_sum_of_both_cross_entropies() -> None:
    real, fake = tf.constant([[0.3, -1.0], [2.0, 1.0]]), tf.constant([[-2.0, 0.5]])
    d_real, d_fake = losses.realness(real).numpy(), losses.realness(fake).numpy()
    expected = 0.5 * (-np.log(d_real).mean() - np.log(1 - d_fake).mean())
    assert losses.unsupervised_loss(real, fake).numpy() == pytest.approx(expected, rel=1e-5)
    assert losses.adversarial_loss(fake).numpy() == pytest.approx(-np.log(d_fake).mean(), rel=1e-5)


def test_feature_matching_is_the_mean_squared_difference_of_the_means() -> None:
    mean = tf.constant([2.0, 3.0])
    assert losses.feature_matching_loss(mean, mean).numpy() == 0
    assert losses.feature_matching_loss(mean, mean + tf.constant([1.0, 3.0])).numpy() == pytest.approx(5.0)


@given(arrays(np.float32, (4, 3), elements=st.floats(0.0078125, 1, width=32)))
@settings(deadline=None)
def test_sharpen_keeps_the_order_and_lowers_the_entropy(values: np.ndarray) -> None:
    probabilities = values / values.sum(axis=1, keepdims=True)
    sharp = losses.sharpen(tf.constant(probabilities), 0.5).numpy()
    np.testing.assert_allclose(sharp.sum(axis=1), 1, rtol=1e-5)
    assert (sharp.max(axis=1) >= probabilities.max(axis=1) - 1e-6).all()
    np.testing.assert_allclose(losses.sharpen(tf.constant(probabilities), 1.0).numpy(), probabilities, rtol=1e-4)


def test_alignment_moves_a_skewed_mean_to_the_prior() -> None:
    mean = tf.constant([0.8, 0.2])
    aligned = losses.align(tf.constant([[0.8, 0.2], [0.8, 0.2]]), tf.constant([0.5, 0.5]), mean).numpy()
    np.testing.assert_allclose(aligned, 0.5, atol=1e-6)


def test_consistency_loss_sends_no_gradient_into_the_pseudo_labels() -> None:
    targets, logits = tf.Variable([[0.7, 0.3]]), tf.Variable([[0.1, 0.2]])
    with tf.GradientTape() as tape:
        loss = losses.consistency_loss(targets, logits)
    into_targets, into_logits = tape.gradient(loss, [targets, logits])
    assert into_targets is None
    assert np.abs(into_logits.numpy()).sum() > 0


@given(logits_arrays, logits_arrays)
@settings(deadline=None)
def test_joint_counts_are_symmetric_and_sum_to_the_weights(first: np.ndarray, second: np.ndarray) -> None:
    counts = losses.joint_counts(tf.constant(first), tf.constant(second), tf.constant([1.0, 0.5, 0.1])).numpy()
    np.testing.assert_allclose(counts, counts.T, atol=1e-6)
    assert counts.sum() == pytest.approx(1.6, rel=1e-4)
    assert counts.min() >= 0


def test_information_is_highest_where_views_agree_and_all_classes_are_used() -> None:
    """log K for one class per image and equal shares; 0 where one class takes all or the views know nothing."""
    sure = tf.constant(50.0 * np.eye(4, dtype=np.float32))

    def information(first: tf.Tensor, second: tf.Tensor) -> float:
        joint = tf.maximum(losses.joint_counts(first, second, tf.fill([4], 0.25)), 1e-8)
        return -float(losses.information_loss(joint, joint, tf.ones([4])))

    assert information(sure, sure) == pytest.approx(np.log(4), rel=1e-4)
    assert information(tf.gather(sure, [0, 0, 0, 0]), tf.gather(sure, [0, 0, 0, 0])) == pytest.approx(0, abs=1e-4)
    assert information(tf.zeros([4, 4]), tf.zeros([4, 4])) == pytest.approx(0, abs=1e-4)
    assert information(sure, tf.roll(sure, 1, axis=0)) < 0.6 * np.log(4)


def test_the_information_losss_gradient_is_that_of_the_information() -> None:
    generator = np.random.default_rng(0)
    first, second = (tf.Variable(generator.normal(size=(6, 3)), dtype=tf.float32) for _ in range(2))

    def plain(joint: tf.Tensor) -> tf.Tensor:
        marginal = tf.reduce_sum(joint, axis=0)
        return -tf.reduce_sum(joint * tf.math.log(joint / (marginal[:, None] * marginal)))

    with tf.GradientTape(persistent=True) as tape:
        joint = losses.joint_counts(first, second, tf.fill([6], 1 / 6))
        ours = losses.information_loss(joint, tf.stop_gradient(joint), tf.ones([3]))
        expected = plain(joint)
    for variable in (first, second):
        np.testing.assert_allclose(tape.gradient(ours, variable), tape.gradient(expected, variable), atol=1e-6)


def test_an_image_without_weight_does_not_count() -> None:
    logits = tf.constant(np.random.default_rng(0).normal(size=(5, 3)), tf.float32)
    weights = tf.constant([1.0, 1.0, 0.0, 1.0, 0.0])
    kept = tf.gather(logits, [0, 1, 3])
    expected = losses.joint_counts(kept, kept, tf.ones([3]))
    np.testing.assert_allclose(losses.joint_counts(logits, logits, weights), expected, atol=1e-6)


def test_the_information_is_largest_where_shares_are_those_of_the_prior() -> None:
    prior = tf.constant([0.7, 0.2, 0.1])

    def loss(shares: list[float]) -> float:
        joint = tf.linalg.diag(tf.constant(shares)) + 1e-8
        return float(losses.information_loss(joint, joint, prior))

    assert loss([0.7, 0.2, 0.1]) == pytest.approx(0, abs=1e-3)
    for other in ([1 / 3, 1 / 3, 1 / 3], [0.8, 0.15, 0.05], [0.6, 0.25, 0.15]):
        assert loss(other) > loss([0.7, 0.2, 0.1]) + 1e-3
