"""Training on several devices or hosts: one global batch, cut into equal shares, with the gradients of one device.

Every replica makes the whole batch of views and takes its share, so that random numbers are those of a single device;
sums over the batch (batch statistics, the joint distribution, feature means) are taken over all replicas. Losses are
therefore those of one device up to rounding, whatever the number of replicas; but each replica drops out units of its
own (`Recipe.dropout`).
"""

import json
import os
from typing import Literal

import tensorflow as tf

from prelabel.errors import InputError
from training.recipe import Recipe

StrategyName = Literal["none", "mirrored", "multi-worker"]


def make_strategy(name: StrategyName) -> tf.distribute.Strategy:
    """Returns the strategy: `mirrored` for this host's GPUs (or logical CPUs), `multi-worker` for TF_CONFIG's hosts.

    Raises:
        InputError: `multi-worker` without a usable TF_CONFIG.
    """
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    if name == "multi-worker":
        check_cluster(os.environ.get("TF_CONFIG", ""))
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def check_cluster(text: str) -> None:
    """Raises `InputError` unless the text is a TF_CONFIG with a worker list and this worker's index."""
    example = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
    try:
        config = json.loads(text)
        workers, index = config["cluster"]["worker"], config["task"]["index"]
        if not 0 <= index < len(workers):
            raise ValueError(f"index {index} of {len(workers)} workers")
    except (ValueError, KeyError, TypeError) as error:
        shown = text or "not set"
        raise InputError(
            f"--strategy multi-worker needs the environment variable TF_CONFIG on each host, such as {example}; it is "
            f"{shown} ({error})"
        ) from error


def check_shares(recipe: Recipe, replicas: int) -> None:
    """Raises `InputError` where a batch of the recipe cannot be cut into equal shares."""
    for name in ("labelled_batch", "photo_labelled_batch", "unlabelled_batch", "generated_batch", "adversarial_batch"):
        size = getattr(recipe, name)
        if size % replicas:
            wanted = -(-size // replicas) * replicas
            raise InputError(f"{name} {size} cannot be shared by {replicas} devices: --change {name}={wanted}")


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process writes the run's folder: with several hosts, the first worker does."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.task_type or (resolver.task_type == "worker" and resolver.task_id == 0)


def mean_over_hosts(strategy: tf.distribute.Strategy, value: float) -> float:
    """Returns the mean of the hosts' values, when all of them have come to this point."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return value

    @tf.function
    def agree(own: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, strategy.run(lambda: tf.identity(own)), axis=None)

    return float(agree(tf.constant(value)))


def replica_count() -> int:
    """Returns the number of replicas, inside or outside a replica's computation."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def share(values: tf.Tensor) -> tf.Tensor:
    """Returns this replica's share of a batch: every n-th entry, so that the first entries are shared as equally."""
    count = replica_count()
    if count == 1:
        return values
    size = values.shape[0]
    place = tf.distribute.get_replica_context().replica_id_in_sync_group
    part = values[place::count]
    return part if size is None else tf.ensure_shape(part, [size // count, *part.shape[1:]])


def mean_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """Returns the mean of the replicas' values; gradients flow back to all of them."""
    if replica_count() == 1:
        return value
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, value)


def part_of_loss(loss: tf.Tensor) -> tf.Tensor:
    """Returns the loss divided by the replicas: the optimizer adds their gradients up."""
    return loss / replica_count()
