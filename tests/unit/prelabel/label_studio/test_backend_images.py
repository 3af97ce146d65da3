"""The images that `prelabel backend label-studio` fetches: one that cannot be had, and more than there is time for."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from prelabel.adapters.label_studio.backend import Backend
from prelabel.adapters.label_studio.images import Images, Places
from prelabel.client import PrelabelClient
from prelabel.errors import ServerUnavailableError
from prelabel.images import ImageSpec
from prelabel.predictions import Model, PredictionBatch
from prelabel.testing import FakeServer
from support.label_studio import config
from support.samples import ListModel, ListPredictor

CONFIG = config("low", "high", "none")


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(("low", "high"), ImageSpec(8, 8, 1), max_request_images=3) as server:
        yield server


def task(number: int, **data: object) -> dict[str, Any]:
    return {"id": number, "data": data, "project": 1}


def test_late_batches_are_left_for_another_time(pile: Path, fake: FakeServer) -> None:
    times = iter([0.0, 0.0, *[1000.0] * 20])
    tasks = [task(i, image="/data/local-files/?d=pile/0000.png") for i in range(7)]
    with PrelabelClient(fake.address) as client:
        backend = Backend(None, client, Images(Places(local_files=pile.parent)), clock=lambda: next(times))
        body = {"tasks": tasks, "label_config": CONFIG}
        results = backend.predict(body)["results"]
        backend.close()
    assert len(results) == 7
    assert results[3:] == [[]] * 4


def test_no_batch_starts_after_the_budget_however_many_there_are(pile: Path) -> None:
    now_s = [0.0]
    model = ListModel("fake000000000000")

    class Slow:
        """A server that takes 25 s for each batch of up to three images."""

        started_s: ClassVar[list[float]] = []

        def model(self) -> Model:
            return replace(ListPredictor(model).model(), max_request_images=3)

        def predict(self, images: Sequence[bytes]) -> PredictionBatch:
            self.started_s.append(now_s[0])
            now_s[0] += 25.0
            raise ServerUnavailableError("too slow")

    tasks = [task(i, image="/data/local-files/?d=pile/0000.png") for i in range(100)]
    backend = Backend(None, Slow(), Images(Places(local_files=pile.parent)), clock=lambda: now_s[0])
    assert backend.predict({"tasks": tasks, "label_config": CONFIG})["results"] == [[]] * 100
    backend.close()
    assert Slow.started_s == [0.0, 25.0, 50.0]


def test_one_image_that_cannot_be_fetched_costs_no_other(
    pile: Path, fake: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(Images):
        def get(self, address: object) -> bytes:
            if address == "odd":
                raise RuntimeError("nobody thought of this")
            return super().get(address)

    bad = ["data:image/png;base64,é", "data:image/png,\ud800", "odd"]
    tasks = [task(i, image=address) for i, address in enumerate([*bad, "/data/local-files/?d=pile/0000.png"])]
    tasks[0]["data"]["uid"] = "\ud800"
    with PrelabelClient(fake.address) as client:
        backend = Backend(None, client, Odd(Places(local_files=pile.parent)))
        results = backend.predict({"tasks": tasks, "label_config": CONFIG})["results"]
        backend.close()
    assert results[:3] == [[]] * 3
    assert results[3]["result"][0]["value"] == {"choices": ["low"]}
    assert "holds no base64, or no ASCII" in caplog.text
    assert "nobody thought of this" in caplog.text
