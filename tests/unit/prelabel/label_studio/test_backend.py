"""`prelabel backend label-studio` over real sockets: a result for each task, in order, and no way around the limits."""

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from prelabel import __main__ as cli
from prelabel.adapters.label_studio.backend import Backend
from prelabel.adapters.label_studio.http import BackendServer
from prelabel.adapters.label_studio.images import Images, Places
from prelabel.adapters.label_studio.stored import load_stored
from prelabel.adapters.rows import Predictions
from prelabel.bulk import BulkConfig, run_bulk
from prelabel.client import PrelabelClient
from prelabel.errors import InputError
from prelabel.images import ImageSpec
from prelabel.testing import FakeServer
from support.label_studio import config
from support.samples import ListModel, ListPredictor, ListSource

CONFIG = config("low", "high", "none")


@pytest.fixture(scope="module")
def predictions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 20 images; number 3 is an error."""
    directory = tmp_path_factory.mktemp("predictions") / "out"
    predictor = ListPredictor(ListModel("fake000000000000"))
    run_bulk(BulkConfig(directory, shard_size=8), ListSource(20, frozenset({3})), "pile", predictor, progress="none")
    return directory


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(("low", "high"), ImageSpec(8, 8, 1), max_request_images=3) as server:
        yield server


@contextmanager
def serve(backend: Backend, credentials: str = "") -> Iterator[tuple[str, int]]:
    with BackendServer(("127.0.0.1", 0), backend, credentials) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield "127.0.0.1", server.server_port
        finally:
            server.shutdown()
            thread.join()
            backend.close()


def call(
    address: tuple[str, int], method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection(*address, timeout=30)
    data = body if isinstance(body, bytes) else json.dumps(body) if body is not None else None
    connection.request(method, path, data, headers or {})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, response.reason, json.loads(content)


def predict(address: tuple[str, int], tasks: list[dict[str, Any]], label_config: str = CONFIG) -> list[Any]:
    body = {"tasks": tasks, "project": "1.1700000000", "label_config": label_config, "params": {"context": None}}
    status, reason, content = call(address, "POST", "/predict", body)
    assert status == 200, reason
    assert len(content["results"]) == len(tasks)
    return list(content["results"])


def task(number: int, **data: object) -> dict[str, Any]:
    return {"id": number, "data": data, "project": 1}


def choice(result: Any) -> str:
    assert result["model_version"] == "fake000000000000"
    assert 0 < result["score"] <= 1
    (one,) = result["result"]
    assert (one["from_name"], one["to_name"], one["type"]) == ("label", "image", "choices")
    return str(*one["value"]["choices"])


def test_health_setup_and_webhook(predictions: Path) -> None:
    with serve(Backend(load_stored(Predictions(predictions)), None, Images(Places()))) as address:
        assert call(address, "GET", "/health") == (200, "OK", {"status": "UP", "model_class": "prelabel"})
        setup = {"project": "1.1", "schema": CONFIG, "hostname": "", "access_token": "x", "extra_params": None}
        assert call(address, "POST", "/setup", setup)[2] == {"model_version": "fake000000000000"}
        assert call(address, "POST", "/webhook", {"action": "ANNOTATION_CREATED"})[2] == {"status": "ok"}
        assert call(address, "POST", "/webhook", {"action": "START_TRAINING"})[0] == 200
        # Label Studio shows the status line alone.
        status, reason, _ = call(address, "POST", "/setup", {**setup, "schema": config("low", "hi")})
        assert status == 400
        assert "lack 'high' of the model's classes" in reason


def test_stored_predictions_answer_in_the_order_of_the_tasks(predictions: Path) -> None:
    with serve(Backend(load_stored(Predictions(predictions)), None, Images(Places()))) as address:
        order = [7, 0, 19, 3, 12, 99]
        results = predict(address, [task(i, uid=f"{i:05d}", image="x") for i in order])
    assert [choice(one) for one in results[:3]] == ["high", "low", "high"]
    assert results[3] == {"model_version": "fake000000000000", "result": []}  # an error row: never to be asked again
    assert choice(results[4]) == "low"
    assert results[5] == []  # not known


def test_what_is_not_stored_goes_to_the_server_in_batches(predictions: Path, pile: Path, fake: FakeServer) -> None:
    stored = load_stored(Predictions(predictions))
    names = ["0000.png", "0001.png", "0002.png", "0003.png", "gone.png"]
    tasks = [task(i, image=f"/data/local-files/?d=pile/{name}") for i, name in enumerate(names)]
    tasks.insert(1, task(50, uid="00001", image="x"))
    tasks += [task(60, image="data:image/png;base64," + base64.b64encode((pile / "0000.png").read_bytes()).decode())]
    tasks += [task(61), {"id": 62}]
    with PrelabelClient(fake.address) as client:
        images = Images(Places(local_files=pile.parent))
        with serve(Backend(stored, client, images)) as address:
            results = predict(address, tasks)
    assert [choice(results[i]) for i in (0, 1, 2, 4, 6)] == ["low", "high", "low", "low", "low"]
    assert results[3]["result"] == []  # broken
    assert results[5] == results[7] == results[8] == []
    assert fake.images == 5
    assert fake.batches == 2


def test_a_server_that_is_away_leaves_tasks_to_be_asked_again(
    predictions: Path, pile: Path, fake: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = [task(1, uid="00001"), task(2, image="/data/local-files/?d=pile/0000.png")]
    with PrelabelClient(fake.address, retry_for_s=0) as client:
        backend = Backend(load_stored(Predictions(predictions)), client, Images(Places(local_files=pile.parent)))
        with serve(backend) as address:
            fake.fail_next(1, grpc.StatusCode.INTERNAL)
            results = predict(address, tasks)
            assert choice(results[0]) == "high"
            assert results[1] == []
            assert "task 2 has no prediction" in caplog.text
            assert choice(predict(address, tasks)[1]) == "low"


def test_a_server_with_a_new_model_says_so(pile: Path, fake: FakeServer) -> None:
    tasks = [task(2, image="/data/local-files/?d=pile/0000.png")]
    with (
        PrelabelClient(fake.address) as client,
        serve(Backend(None, client, Images(Places(local_files=pile.parent)))) as address,
    ):
        assert choice(predict(address, tasks)[0]) == "low"
        fake.model_id, fake.classes = "another000000000", ("none", "high")
        (result,) = predict(address, tasks)
        assert result["model_version"] == "another000000000"
        assert result["result"][0]["value"] == {"choices": ["none"]}


def test_of_several_choices_one_is_named(predictions: Path) -> None:
    second = '<Choices name="quality" toName="image"><Choice value="good"/></Choices></View>'
    two = CONFIG.replace("</View>", second)
    stored = load_stored(Predictions(predictions))
    body = {"tasks": [task(1, uid="00001")], "label_config": two}
    with pytest.raises(InputError, match="name one with --choices"):
        Backend(stored, None, Images(Places())).predict(body)
    (result,) = Backend(stored, None, Images(Places()), choices="label").predict(body)["results"]
    assert choice(result) == "high"


def test_requests_that_cannot_be_answered(predictions: Path) -> None:
    with serve(Backend(load_stored(Predictions(predictions)), None, Images(Places()))) as address:
        assert call(address, "GET", "/nothing")[0] == 404
        assert call(address, "POST", "/train", {})[0] == 404
        assert call(address, "POST", "/predict", b"{no json")[0] == 400
        assert call(address, "POST", "/predict", b"[]")[0] == 400
        assert call(address, "POST", "/predict", {"tasks": 5, "label_config": CONFIG})[0] == 400
        assert call(address, "POST", "/predict", {"tasks": []})[0] == 400
        assert call(address, "POST", "/predict", None, {"Content-Length": str(1 << 40)})[0] == 413
        assert predict(address, []) == []


def test_basic_authentication(predictions: Path) -> None:
    backend = Backend(load_stored(Predictions(predictions)), None, Images(Places()))
    with serve(backend, "ls:secret") as address:
        for wrong in ({}, {"Authorization": "Basic " + base64.b64encode(b"ls:wrong").decode()}):
            assert call(address, "GET", "/health", headers=wrong)[0] == 401
            assert call(address, "POST", "/predict", {"tasks": []}, headers=wrong)[0] == 401
        right = {"Authorization": "Basic " + base64.b64encode(b"ls:secret").decode()}
        assert call(address, "GET", "/health", headers=right)[0] == 200


def test_predictions_and_server_of_different_models_are_refused(predictions: Path, fake: FakeServer) -> None:
    fake.model_id = "another000000000"
    with PrelabelClient(fake.address) as client, pytest.raises(InputError, match="the predictions are of model fake"):
        Backend(load_stored(Predictions(predictions)), client, Images(Places()))
    with pytest.raises(InputError, match="give --predictions, --server or both"):
        Backend(None, None, Images(Places()))


def test_the_command_serves_until_sigterm(predictions: Path) -> None:
    command = [sys.executable, "-m", "prelabel", "backend", "label-studio", "--predictions", str(predictions)]
    environment = {**os.environ, "PRELABEL_BACKEND_AUTH": "me:secret"}
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("answering at http://127.0.0.1:")
        address = "127.0.0.1", int(line.rpartition(":")[2])
        assert call(address, "GET", "/health")[0] == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "give --predictions, --server or both"),
        (["--predictions", "nowhere"], "nowhere holds no predictions"),
        (["--local-files", "nowhere"], "--local-files nowhere is no folder"),
        (["--allow-host", "http://x"], "--allow-host http://x is not usable"),
        (["--url", "localhost"], "LABEL_STUDIO_API_KEY"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: list[str], message: str
) -> None:
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    assert cli.main(["backend", "label-studio", "--port", "0", *more]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_a_port_that_is_taken_is_one_line(predictions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer() as server:
        port = server.address.rpartition(":")[2]
        assert cli.main(["backend", "label-studio", "--predictions", str(predictions), "--port", port]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
