"""The losses of a semi-supervised GAN, in forms that cannot overflow. B images, K classes, F features.

D's K logits l define both heads: softmax(l) over the classes, and, with an implied logit of 0 for "fake" (Salimans et
al. 2016, section 5), D(x) = 1 - 1 / (sum exp(l) + 1) = sigmoid(r) with r = logsumexp(l).
"""

import tensorflow as tf


def real_logit(logits: tf.Tensor) -> tf.Tensor:
    """Returns r = logsumexp(logits), float32 [B], for logits float32 [B, K].

    Written out because TensorFlow's own reduce_logsumexp exports to fifteen ONNX nodes with IsInf among them.
    """
    largest = tf.reduce_max(logits, axis=-1, keepdims=True)
    summed = tf.reduce_sum(tf.exp(logits - largest), axis=-1)
    return tf.squeeze(largest, -1) + tf.math.log(summed)


def realness(logits: tf.Tensor) -> tf.Tensor:
    """Returns D(x) = sigmoid(r), float32 [B], 0..1."""
    return tf.sigmoid(real_logit(logits))


def supervised_loss(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mean cross-entropy of labels int32 [B] under softmax(logits)."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def unsupervised_loss(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    """D's real-or-fake loss: the mean of -log D(x) over real and of -log(1 - D(G(z))) over generated images, halved."""
    real = tf.reduce_mean(tf.nn.softplus(-real_logit(real_logits)))
    fake = tf.reduce_mean(tf.nn.softplus(real_logit(fake_logits)))
    return 0.5 * (real + fake)


def adversarial_loss(fake_logits: tf.Tensor) -> tf.Tensor:
    """G's non-saturating loss, the mean of -log D(G(z)) (Goodfellow et al. 2014)."""
    return tf.reduce_mean(tf.nn.softplus(-real_logit(fake_logits)))


def feature_matching_loss(real_mean: tf.Tensor, fake_mean: tf.Tensor) -> tf.Tensor:
    """G's loss ||E h(x) - E h(G(z))||^2 / F, from mean features float32 [F] (Salimans et al. 2016, eq. 1)."""
    return tf.reduce_mean(tf.square(real_mean - fake_mean))


def consistency_loss(pseudo_labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Mean cross-entropy of softmax(logits) against fixed soft targets float32 [B, K]."""
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(tf.stop_gradient(pseudo_labels), logits))


def joint_counts(first: tf.Tensor, second: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Returns how often two views of an image are of class i and j: float32 [K, K], symmetric, of the weights' sum.

    Takes the logits of both views, float32 [B, K], and the images' weights, float32 [B] (Ji et al. 2019, eq. 2 and the
    symmetrisation below it).
    """
    counts = tf.matmul(tf.nn.softmax(first) * weights[:, None], tf.nn.softmax(second), transpose_a=True)
    return 0.5 * (counts + tf.transpose(counts))


def information_loss(joint: tf.Tensor, average: tf.Tensor, prior: tf.Tensor) -> tf.Tensor:
    """Returns minus the mutual information I = sum P_ij log(P_ij / (P_i P_j)) of two views, with a prior; nats.

    Of I, the entropy of P_i asks for classes of equal shares. With sum P_i log(prior_i) added to I it asks for those of
    the prior: views that agree give KL(P_i || prior), 0 at best. A prior of ones gives the plain -I.

    Args:
        joint: float32 [K, K], the batch's joint distribution.
        average: float32 [K, K], over 0: a moving average that `joint` is part of. A batch has too few images to
            estimate K x K chances, and would be asked to hold each class equally often. With the logarithm held fixed
            the gradient is that of the information (the derivatives of the logarithms sum to zero).
        prior: float32 [K], over 0: shares of the classes.
    """
    marginal = tf.reduce_sum(average, axis=0)
    given = tf.math.log(marginal) - 0.5 * tf.math.log(prior)
    gain = tf.math.log(average) - given[:, None] - given
    return -tf.reduce_sum(joint * tf.stop_gradient(gain))


def sharpen(probabilities: tf.Tensor, temperature: float) -> tf.Tensor:
    """Returns p^(1 / temperature), normalised over the last axis."""
    powers = tf.pow(probabilities, 1.0 / temperature)
    return powers / tf.reduce_sum(powers, axis=-1, keepdims=True)


def align(probabilities: tf.Tensor, prior: tf.Tensor, mean: tf.Tensor) -> tf.Tensor:
    """Distribution alignment: p * prior / mean, normalised; prior and mean float32 [K] (Berthelot et al. 2020)."""
    moved = probabilities * prior / tf.maximum(mean, 1e-6)
    return moved / tf.reduce_sum(moved, axis=-1, keepdims=True)


def relative_entropy(probabilities: tf.Tensor) -> tf.Tensor:
    """Returns the entropy of float32 [K] as a share of log K, 0..1: 1 where all classes are as likely."""
    entropy = -tf.reduce_sum(probabilities * tf.math.log(probabilities + 1e-8))
    return entropy / tf.math.log(tf.cast(tf.shape(probabilities)[0], tf.float32))
