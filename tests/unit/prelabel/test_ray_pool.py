"""Handing shards to workers that die, around a stand-in for Ray."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from prelabel.errors import WorkerError
from prelabel.ray_runner import MAX_LOST, _Pool
from prelabel.shards import Run

RUN = Run("pile", "hash", 12, "m1", ("a",), 1)
SHARDS = [range(i, i + 1) for i in range(12)]


class DiedError(Exception):
    """Ray's error of a worker that is gone."""


@dataclass(frozen=True)
class Worker:
    """What Ray's handle of an actor has: calls that give what `FakeRay.get` takes."""

    number: int
    node: str

    @property
    def start(self) -> Any:
        return SimpleNamespace(remote=lambda _: (self.number, self.node, None))

    @property
    def label(self) -> Any:
        return SimpleNamespace(remote=lambda rows: (self.number, self.node, rows))


class FakeRay:
    """Workers on nodes. A call is answered in the order of the calls, but those of workers that are gone at once."""

    exceptions = SimpleNamespace(RayError=DiedError, RayTaskError=type("Task", (Exception,), {}))

    def __init__(self, nodes: list[str], dies: Callable[[str, Any], bool]) -> None:
        self.nodes, self.dies = nodes, dies
        self.gone: set[str] = set()
        self.killed: list[int] = []
        self.hired = 0

    def remote(self, **_: object) -> Callable[[Any], Any]:
        return lambda _: SimpleNamespace(remote=self._hire)

    def put(self, job: object) -> object:
        return job

    def kill(self, worker: Any, no_restart: bool) -> None:
        self.killed.append(worker.number)

    def wait(self, calls: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        at_once = [call for call in calls if call[1] in self.gone]
        return (at_once or calls)[:1], []

    def get(self, call: Any) -> Any:
        _, node, rows = call
        if rows is not None and self.dies(node, rows):
            self.gone.add(node)
        if node in self.gone:
            raise DiedError(f"the node {node} is dead")
        return node if rows is None else rows

    def _hire(self) -> Worker:
        self.hired += 1
        return Worker(self.hired - 1, self.nodes[min(self.hired, len(self.nodes)) - 1])


def done_by(ray: FakeRay, actors: int) -> list[range]:
    pool = _Pool(ray, SimpleNamespace(run=RUN), 0.0)
    return sorted(pool.label(SHARDS, actors), key=lambda rows: rows.start)  # type: ignore[arg-type,return-value]


def test_a_node_that_dies_with_idle_workers_costs_its_shard_one_try() -> None:
    """Eight workers on one node, which dies in the last shard, when seven of them have nothing to do."""
    ray = FakeRay(["a"] * 8 + ["b"], lambda node, rows: node == "a" and rows == SHARDS[-1])
    assert done_by(ray, 8) == SHARDS
    assert sorted(ray.killed) == list(range(8))
    assert ray.hired == 16


def test_a_shard_that_kills_every_worker_ends_the_run() -> None:
    ray = FakeRay([f"node {i}" for i in range(99)], lambda _, rows: rows == SHARDS[3])
    with pytest.raises(WorkerError, match=f"{MAX_LOST} workers died during shard 3"):
        done_by(ray, 2)
