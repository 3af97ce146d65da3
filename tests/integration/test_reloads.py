"""Models that are loaded and replaced while the server answers: who waits, who answers, what is left."""

import asyncio
import logging
import queue
import threading
import weakref
from pathlib import Path

import pytest
from conftest import write_tiny_bundle

from prelabel.engine import Engine, RuntimeChoice, load_engine
from prelabel.v1 import admin_pb2 as admin_pb
from prelabel.v1 import prelabel_pb2 as pb
from support.versions import DRAINING, SERVING, TENSOR, TOKEN, HeldLoad, listed, load, serving


@pytest.fixture(autouse=True)
def _admin_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELABEL_TOKENS", f"ops:{TOKEN}:admin")


async def test_a_reload_goes_on_without_who_asked_for_it_and_holds_nobody_up(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "1")
    held = HeldLoad("2")
    async with serving(tmp_path, held) as (stub, admin):
        write_tiny_bundle(tmp_path / "2")
        reload = admin.Reload(admin_pb.ReloadRequest())
        assert await asyncio.to_thread(held.begun.wait, 10)
        reload.cancel()
        assert (await stub.GetModel(pb.GetModelRequest())).model_version == "1"
        assert len((await stub.Predict(pb.PredictRequest(tensor=TENSOR))).realness) == 1
        held.gate.set()
        # Whoever asks next waits for it.
        answer = await admin.Reload(admin_pb.ReloadRequest())
        assert [model.version for model in answer.models if model.is_default] == ["2"]
    assert held.loads == ["1", "2"]


@pytest.mark.parametrize("asked", [False, True], ids=["watched", "asked"])
async def test_a_server_stops_while_a_model_is_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, asked: bool
) -> None:
    write_tiny_bundle(tmp_path / "1")
    held = HeldLoad("2")
    async with serving(tmp_path, held, reload_every_s=0.0 if asked else 0.01) as (stub, admin):
        write_tiny_bundle(tmp_path / "2")
        if asked:
            reload = admin.Reload(admin_pb.ReloadRequest())
        assert await asyncio.to_thread(held.begun.wait, 10)
        if asked:
            reload.cancel()
        assert (await stub.GetModel(pb.GetModelRequest())).model_version == "1"
    (thread,) = [one for one in threading.enumerate() if one.name == "load"]
    held.gate.set()
    await asyncio.to_thread(thread.join)
    await asyncio.sleep(0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_no_older_version_answers_while_several_are_loaded(tmp_path: Path) -> None:
    begun: queue.SimpleQueue[str] = queue.SimpleQueue()
    go = threading.Semaphore(0)

    def held(directory: Path) -> Engine:
        begun.put(directory.name)
        assert go.acquire(timeout=10)
        return load(directory)

    for name in ("1", "2"):
        write_tiny_bundle(tmp_path / "models" / name, "old")
    go.release(2)
    async with serving(tmp_path / "models", held, versions="all") as (stub, admin):
        for name in ("1", "2"):
            (tmp_path / "models" / name).rename(tmp_path / name)
        for name in ("1", "2", "3"):
            write_tiny_bundle(tmp_path / "models" / name, "new")
        begun.get(), begun.get()
        reload = admin.Reload(admin_pb.ReloadRequest())
        answered_by = []
        for _ in range(3):
            await asyncio.to_thread(begun.get, timeout=10)
            answered_by.append((await stub.GetModel(pb.GetModelRequest())).model_version)
            go.release()
        await reload
        assert answered_by == ["2", "3", "3"]
        # What was replaced goes when nobody uses it; under its name it is listed until then.
        while DRAINING in (state for state, _ in (await listed(admin)).values()):
            await asyncio.sleep(0)
        assert await listed(admin) == {"1": (SERVING, False), "2": (SERVING, False), "3": (SERVING, True)}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
async def test_a_replaced_model_leaves_memory(tmp_path: Path, runtime: RuntimeChoice) -> None:
    """Without the garbage collector, which does not look at what was loaded before the server served."""
    engines: list[weakref.ref[Engine]] = []

    def noted(directory: Path) -> Engine:
        engine = load_engine(directory, "cpu", threads=1, runtime=runtime, precision="float32")
        engines.append(weakref.ref(engine))
        return engine

    write_tiny_bundle(tmp_path / "1")
    async with serving(tmp_path, noted, metrics_port=0) as (stub, admin):
        await stub.Predict(pb.PredictRequest(tensor=TENSOR))
        write_tiny_bundle(tmp_path / "2", "new")
        await admin.Reload(admin_pb.ReloadRequest())
        while len(await listed(admin)) == 2:
            await asyncio.sleep(0)
        await stub.Predict(pb.PredictRequest(tensor=TENSOR))
        assert [engine() is None for engine in engines] == [True, False]
    assert engines[1]() is None
