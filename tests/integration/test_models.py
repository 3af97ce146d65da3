"""Several versions, and new ones while requests are in flight."""

import asyncio
import logging
import shutil
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from conftest import tiny_images, write_tiny_bundle

from prelabel.bundle import BUNDLE_FILE, MODEL_FILE, load_bundle
from prelabel.engine import Engine
from prelabel.errors import BundleError, InputError
from prelabel.v1 import admin_pb2 as admin_pb
from prelabel.v1 import prelabel_pb2 as pb
from serving import failures
from serving.config import Config
from serving.models import Models
from support.versions import DRAINING, FAILED, SERVING, TENSOR, TOKEN, listed, load, serving


@pytest.fixture(autouse=True)
def _admin_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRELABEL_TOKENS", f"ops:{TOKEN}:admin")


async def test_versions_are_served_side_by_side_and_answers_name_their_model(tmp_path: Path) -> None:
    ids = {name: load_bundle(write_tiny_bundle(tmp_path / name, f"tiny {name}")).model_id for name in ("1", "2")}
    async with serving(tmp_path, versions="all") as (stub, admin):
        assert await listed(admin) == {"1": (SERVING, False), "2": (SERVING, True)}
        for asked, version in [("", "2"), ("1", "1"), ("2", "2"), (ids["1"], "1")]:
            model = await stub.GetModel(pb.GetModelRequest(model_version=asked))
            answer = await stub.Predict(pb.PredictRequest(tensor=TENSOR, model_version=asked))
            assert (model.model_version, model.model_id, answer.model_id) == (version, ids[version], ids[version])
        with pytest.raises(grpc.aio.AioRpcError, match="version '3' is not served here, but 1, 2") as caught:
            await stub.Predict(pb.PredictRequest(tensor=TENSOR, model_version="3"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_new_version_takes_over_while_a_stream_keeps_its_model(tmp_path: Path) -> None:
    old = load_bundle(write_tiny_bundle(tmp_path / "1", "old")).model_id
    async with serving(tmp_path) as (stub, admin):
        stream = stub.PredictStream()
        await stream.write(pb.PredictRequest(tensor=TENSOR))
        assert (await stream.read()).model_id == old

        new = load_bundle(write_tiny_bundle(tmp_path / "2", "new")).model_id
        await admin.Reload(admin_pb.ReloadRequest())
        assert (await stub.Predict(pb.PredictRequest(tensor=TENSOR))).model_id == new
        assert await listed(admin) == {"1": (DRAINING, False), "2": (SERVING, True)}
        await stream.write(pb.PredictRequest(tensor=TENSOR))
        assert (await stream.read()).model_id == old

        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        while len(await listed(admin)) == 2:
            await asyncio.sleep(0)
        assert await listed(admin) == {"2": (SERVING, True)}


async def test_a_replaced_bundle_is_noticed_without_being_asked(tmp_path: Path) -> None:
    old = load_bundle(write_tiny_bundle(tmp_path / "bundle", "old")).model_id
    async with serving(tmp_path / "bundle", reload_every_s=0.01) as (stub, _):
        assert (await stub.Predict(pb.PredictRequest(tensor=TENSOR))).model_id == old
        fresh = write_tiny_bundle(tmp_path / "fresh", "new")
        (tmp_path / "bundle").rename(tmp_path / "old")
        fresh.rename(tmp_path / "bundle")
        while (answer := await stub.Predict(pb.PredictRequest(tensor=TENSOR))).model_id == old:
            pass
        assert answer.model_id == load_bundle(tmp_path / "bundle").model_id


async def test_no_request_is_lost_while_models_are_swapped(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "1")
    pixels = [20, 140, 230]
    async with serving(tmp_path) as (stub, admin):
        stop = asyncio.Event()

        async def ask(number: int) -> set[str]:
            seen = set()
            while not stop.is_set():
                images = tiny_images([pixels[number % 3]] * (1 + number))
                tensor = pb.ImageTensor(shape=images.shape, dtype=pb.DATA_TYPE_UINT8, data=images.tobytes())
                answer = await stub.Predict(pb.PredictRequest(tensor=tensor))
                assert list(answer.label_index) == [number % 3] * len(images)
                seen.add(answer.model_id)
            return seen

        callers = [asyncio.create_task(ask(number)) for number in range(8)]
        for version in range(2, 8):
            write_tiny_bundle(tmp_path / str(version), f"model {version}")
            answer = await admin.Reload(admin_pb.ReloadRequest())
            assert [m.version for m in answer.models if m.is_default] == [str(version)]
        stop.set()
        assert len(set.union(*await asyncio.gather(*callers))) > 1


async def test_a_bad_bundle_leaves_the_old_model_serving_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = write_tiny_bundle(tmp_path / "1")
    async with serving(tmp_path) as (stub, admin):
        shutil.copytree(good, tmp_path / "2")
        bundle = (tmp_path / "2" / BUNDLE_FILE).read_text().replace('"tiny"', '"other"')
        (tmp_path / "2" / BUNDLE_FILE).write_text(bundle)
        with caplog.at_level(logging.ERROR):
            answer = await admin.Reload(admin_pb.ReloadRequest())
        assert {model.version: model.state for model in answer.models} == {"1": SERVING, "2": FAILED}
        assert "was changed after export" in next(m.error for m in answer.models if m.version == "2")
        assert "was changed after export" in str([vars(record).get("reason") for record in caplog.records])
        assert (await stub.Predict(pb.PredictRequest(tensor=TENSOR))).model_id == load_bundle(good).model_id
        # Mended, it takes over.
        shutil.rmtree(tmp_path / "2")
        mended = load_bundle(write_tiny_bundle(tmp_path / "2", "mended")).model_id
        await admin.Reload(admin_pb.ReloadRequest())
        assert (await stub.Predict(pb.PredictRequest(tensor=TENSOR))).model_id == mended


async def test_a_version_that_was_taken_away_goes_also_where_another_cannot_be_loaded(tmp_path: Path) -> None:
    for version in ("1", "2"):
        write_tiny_bundle(tmp_path / version)
    async with serving(tmp_path, versions="all") as (stub, admin):
        shutil.rmtree(tmp_path / "2")
        (write_tiny_bundle(tmp_path / "3") / MODEL_FILE).write_bytes(b"")
        answer = await admin.Reload(admin_pb.ReloadRequest())
        assert {model.version: model.state for model in answer.models if model.state != DRAINING} == {
            "1": SERVING,
            "3": FAILED,
        }
        with pytest.raises(grpc.aio.AioRpcError, match="version '2' is not served here"):
            await stub.Predict(pb.PredictRequest(tensor=TENSOR, model_version="2"))
        # With nothing left that could answer, the last model stays.
        shutil.rmtree(tmp_path / "1")
        await admin.Reload(admin_pb.ReloadRequest())
        assert (await stub.GetModel(pb.GetModelRequest())).model_version == "1"


async def test_a_named_version_that_is_gone_does_not_hinder_the_others(tmp_path: Path) -> None:
    for version in ("1", "2"):
        write_tiny_bundle(tmp_path / version)
    async with serving(tmp_path, versions="1,2") as (stub, admin):
        shutil.rmtree(tmp_path / "2")
        shutil.rmtree(tmp_path / "1")
        new = load_bundle(write_tiny_bundle(tmp_path / "1", "new")).model_id
        answer = await admin.Reload(admin_pb.ReloadRequest())
        assert {model.version: model.error for model in answer.models if model.state == FAILED} == {
            "2": "its folder is not there"
        }
        assert (await stub.Predict(pb.PredictRequest(tensor=TENSOR))).model_id == new
        with pytest.raises(grpc.aio.AioRpcError, match="version '2' is not served here"):
            await stub.Predict(pb.PredictRequest(tensor=TENSOR, model_version="2"))
        write_tiny_bundle(tmp_path / "2")
        await admin.Reload(admin_pb.ReloadRequest())
        assert {version: state for version, (state, _) in (await listed(admin)).items() if state != DRAINING} == {
            "1": SERVING,
            "2": SERVING,
        }


async def test_a_model_on_which_the_runtime_fails_leaves_the_old_one_serving(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "1")

    def failing(directory: Path) -> Engine:
        if directory.name == "2":
            raise RuntimeError("a runtime's own words")
        return load(directory)

    async with serving(tmp_path, failing, reload_every_s=0.01) as (stub, admin):
        write_tiny_bundle(tmp_path / "2")
        while len(seen := await listed(admin)) < 2:
            await asyncio.sleep(0)
        assert seen == {"1": (SERVING, True), "2": (FAILED, False)}
        # The watcher lives on.
        write_tiny_bundle(tmp_path / "3")
        while len(seen := await listed(admin)) < 3 and "3" not in seen:
            await asyncio.sleep(0)
        assert (await stub.GetModel(pb.GetModelRequest())).model_version == "3"


async def test_a_directory_that_vanishes_is_an_error_of_the_reload_and_serving_goes_on(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "models" / "1")
    async with serving(tmp_path / "models") as (stub, admin):
        (tmp_path / "models").rename(tmp_path / "away")
        with pytest.raises(grpc.aio.AioRpcError, match="holds no model bundle") as caught:
            await admin.Reload(admin_pb.ReloadRequest())
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert len((await stub.Predict(pb.PredictRequest(tensor=TENSOR))).realness) == 1


async def test_a_damaged_version_does_not_hinder_the_start_where_another_can_serve(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "1")
    (write_tiny_bundle(tmp_path / "2") / MODEL_FILE).write_bytes(b"")
    async with serving(tmp_path, versions="all") as (stub, admin):
        assert await listed(admin) == {"1": (SERVING, True), "2": (FAILED, False)}
        answer = await stub.Predict(pb.PredictRequest(tensor=TENSOR))
        assert np.argmax(answer.probabilities) == 2
    with pytest.raises(InputError, match="there is no 9"):
        await Models(tmp_path, load, Config(tmp_path, versions="9")).open()


async def test_a_server_that_starts_beside_a_damaged_latest_version_serves_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tiny_bundle(tmp_path / "1")
    for version in ("2", "3"):
        (write_tiny_bundle(tmp_path / version) / MODEL_FILE).write_bytes(b"")
    with caplog.at_level(logging.ERROR):
        async with serving(tmp_path) as (stub, admin):
            assert await listed(admin) == {"1": (SERVING, True), "3": (FAILED, False)}
            record = next(vars(one) for one in caplog.records if "an older one serves" in one.message)
            assert (record["version"], record["serving"]) == ("3", "1")
            assert "was changed after export" in record["reason"]
            shutil.rmtree(tmp_path / "3")
            mended = load_bundle(write_tiny_bundle(tmp_path / "3", "mended")).model_id
            await admin.Reload(admin_pb.ReloadRequest())
            assert (await stub.Predict(pb.PredictRequest(tensor=TENSOR))).model_id == mended
    shutil.rmtree(tmp_path / "3")
    shutil.rmtree(tmp_path / "1")
    with pytest.raises(BundleError, match="was changed after export"):
        await Models(tmp_path, load, Config(tmp_path)).open()


async def test_a_bundle_that_was_looked_at_before_it_was_whole_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(failures, "RETRY_S", 0.0)
    root, whole = tmp_path / "models", write_tiny_bundle(tmp_path / "whole", "new")
    write_tiny_bundle(root / "1")
    async with serving(root, reload_every_s=0.01) as (stub, admin):
        (root / "2").mkdir()
        shutil.copy(whole / BUNDLE_FILE, root / "2")
        while len(seen := await listed(admin)) < 2:
            await asyncio.sleep(0)
        assert seen == {"1": (SERVING, True), "2": (FAILED, False)}
        shutil.copy(whole / MODEL_FILE, root / "2")
        while (await stub.GetModel(pb.GetModelRequest())).model_version == "1":
            await asyncio.sleep(0)
        assert FAILED not in {state for state, _ in (await listed(admin)).values()}
    said = [one for one in caplog.records if one.message == "a model was not loaded"]
    assert len({vars(one)["reason"] for one in said}) == len(said), "each reason is told once"


async def test_the_admin_service_is_for_tokens_with_the_role_admin_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_bundle(tmp_path / "1")
    for tokens in (f"user:{TOKEN}", None):
        if tokens is None:
            monkeypatch.delenv("PRELABEL_TOKENS")
        else:
            monkeypatch.setenv("PRELABEL_TOKENS", tokens)
        async with serving(tmp_path) as (stub, admin):
            assert len((await stub.Predict(pb.PredictRequest(tensor=TENSOR))).realness) == 1
            for call in (admin.ListModels(admin_pb.ListModelsRequest()), admin.Reload(admin_pb.ReloadRequest())):
                with pytest.raises(grpc.aio.AioRpcError, match="role admin") as caught:
                    await call
                assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
