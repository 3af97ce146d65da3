"""A run that is taken up: what computed its rows is recorded, and goes on computing them."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from prelabel.bulk import BulkSummary
from prelabel.output import RUN_FILE, recorded_provider
from support import command_line
from support.bulk_runs import bulk, check_rows
from support.samples import ListModel, ListPredictor, ListSource, write_pile


def bulk_by(provider: str, output: Path, predictor: ListPredictor | None = None, **options: Any) -> BulkSummary:
    """Pre-labels 25 images by a model that this runs."""
    predictor = predictor or ListPredictor()
    predictor.about = ListModel(execution_provider=provider)
    return bulk(output, ListSource(25), predictor, **options)


def change_record(output: Path, **changes: Any) -> None:
    fields = json.loads((output / RUN_FILE).read_text()) | changes
    (output / RUN_FILE).write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))


def test_what_computed_the_rows_is_recorded(tmp_path: Path) -> None:
    assert recorded_provider(tmp_path / "out", "model-1") == ""
    bulk_by("OpenVINO int8", tmp_path / "out")
    assert recorded_provider(tmp_path / "out", "model-1") == "OpenVINO int8"
    assert recorded_provider(tmp_path / "out", "model-2") == ""


@pytest.mark.parametrize(
    ("before", "fix"),
    [
        ("OpenVINO int8", "give --device cpu --runtime openvino --precision int8 beside --model, or to the server"),
        ("TensorrtExecutionProvider", "use a server that runs TensorrtExecutionProvider"),
    ],
)
def test_rows_of_something_else_are_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, before: str, fix: str
) -> None:
    output = tmp_path / "out"
    bulk_by(before, output, limit=10)
    bulk_by(before, output, limit=20)
    assert caplog.messages == []
    bulk_by("CPUExecutionProvider", output)
    assert caplog.messages == [
        f"the rows in {output} so far were computed by {before}, those from here on by CPUExecutionProvider and "
        f"may differ: to go on as before, {fix}"
    ]
    check_rows(output, 25)
    bulk_by("CPUExecutionProvider", output)  # which has nothing to do any more
    assert len(caplog.messages) == 1
    assert recorded_provider(output, "model-1") == before


@pytest.mark.parametrize(("before", "now"), [(None, "OpenVINO int8"), ("", "OpenVINO int8"), ("OpenVINO int8", "")])
def test_what_is_not_known_is_not_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, before: str | None, now: str
) -> None:
    bulk_by("x", tmp_path / "out", limit=10)
    change_record(tmp_path / "out", execution_provider=before)  # None: as versions before wrote it
    bulk_by(now, tmp_path / "out")
    assert caplog.messages == []
    check_rows(tmp_path / "out", 25)


def test_a_try_that_made_no_rows_does_not_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyboardInterrupt):
        bulk_by("OpenVINO int8", tmp_path / "out", ListPredictor(fail_at_batch=0))
    bulk_by("CPUExecutionProvider", tmp_path / "out")
    assert caplog.messages == []
    assert recorded_provider(tmp_path / "out", "model-1") == "CPUExecutionProvider"


def test_overwrite_starts_afresh(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bulk_by("OpenVINO int8", tmp_path / "out")
    bulk_by("CPUExecutionProvider", tmp_path / "out", overwrite=True)
    assert caplog.messages == []
    assert recorded_provider(tmp_path / "out", "model-1") == "CPUExecutionProvider"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_command_goes_on_as_it_began(
    tmp_path: Path, tiny_bundle: Path, caplog: pytest.LogCaptureFixture, runtime: str
) -> None:
    pile = write_pile(tmp_path / "pile", 9)
    assert command_line.bulk(pile, tiny_bundle, "--limit", 4, "--runtime", runtime) == 0
    caplog.set_level(logging.INFO, "prelabel")
    assert command_line.bulk(pile, tiny_bundle) == 0
    name = {"onnxruntime": "CPUExecutionProvider", "openvino": "OpenVINO float32"}[runtime]
    assert caplog.messages == [f"engine: {name}, as before"]
    caplog.clear()
    assert command_line.bulk(pile, tiny_bundle, "--overwrite") == 0
    (message,) = caplog.messages
    assert "by images/s of one core" in message
