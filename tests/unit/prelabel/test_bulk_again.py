"""A run that is taken up: what computed its rows goes on computing them, and errors are tried again on request."""

import json
import logging
from pathlib import Path
from typing import Any

import fsspec
import pytest

from prelabel.bulk import BulkSummary
from prelabel.commands import exits
from prelabel.errors import InputError
from prelabel.output import RUN_FILE, recorded_provider
from support import command_line
from support.bulk_runs import bulk, check_rows, parts
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


def again(output: Path, source: ListSource, **options: Any) -> tuple[BulkSummary, list[int]]:
    """Tries errors again; returns the summary and the positions that were predicted."""
    predictor = ListPredictor()
    return bulk(output, source, predictor, retry_errors=True, **options), predictor.predicted


def test_only_files_with_errors_are_made_again(tmp_path: Path) -> None:
    output = tmp_path / "out"
    bulk(output, ListSource(33, frozenset({4, 5, 27})))
    kept = [(output / name).stat().st_mtime_ns for name in (parts(output)[1], parts(output)[3])]
    summary, predicted = again(output, ListSource(33, frozenset({27})))
    assert [i for i in predicted if i] == [*range(1, 10), *(i for i in range(20, 30) if i != 27)]
    assert (summary.images, summary.errors, summary.predicted) == (33, 1, 20)
    assert (summary.shards_written, summary.shards_skipped) == (2, 2)
    check_rows(output, 33, frozenset({27}))
    assert [(output / name).stat().st_mtime_ns for name in (parts(output)[1], parts(output)[3])] == kept
    summary, predicted = again(output, ListSource(33))
    assert (summary.errors, predicted) == (0, list(range(20, 30)))
    assert again(output, ListSource(33))[1] == []


def test_what_is_missing_is_made_as_well(tmp_path: Path) -> None:
    bulk(tmp_path / "out", ListSource(33, frozenset({4})), limit=20)
    assert again(tmp_path / "out", ListSource(33))[1] == [*range(10), *range(20, 33)]
    check_rows(tmp_path / "out", 33)


@pytest.mark.parametrize(
    ("there", "limit", "wanted"),
    [
        (33, 5, range(10)),  # its file is one piece, and nothing of it gets lost
        (33, 10, range(10)),
        (14, 12, range(14)),
        (14, 14, range(14)),
        (14, 20, range(20)),
    ],
)
def test_a_limit_says_which_files_and_takes_no_row_away(tmp_path: Path, there: int, limit: int, wanted: range) -> None:
    output, broken = tmp_path / "out", frozenset({4, 13, 25})
    bulk(output, ListSource(33, broken), limit=there)
    summary, predicted = again(output, ListSource(33), limit=limit)
    assert predicted == list(wanted)
    assert summary.images == max(there, limit)
    check_rows(output, max(there, limit), broken - set(wanted))


def test_a_new_try_that_breaks_off_loses_no_row(tmp_path: Path) -> None:
    output, broken = tmp_path / "out", frozenset({4, 13, 25})
    bulk(output, ListSource(33, broken))
    with pytest.raises(KeyboardInterrupt):
        bulk(output, ListSource(33), ListPredictor(fail_at_batch=4), retry_errors=True)
    check_rows(output, 33, frozenset({13, 25}))
    assert again(output, ListSource(33))[1] == list(range(10, 30))
    check_rows(output, 33)


def test_a_new_try_of_everything_is_warned_of_where_it_is_by_something_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bulk(tmp_path / "out", ListSource(25, frozenset({4})), limit=5)
    bulk_by("OpenVINO int8", tmp_path / "out", retry_errors=True, limit=5)
    (message,) = caplog.messages
    assert "so far were computed by none, those from here on by OpenVINO int8" in message


def test_trying_errors_again_and_starting_over_are_two_things(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--retry-errors and --overwrite exclude each other"):
        bulk(tmp_path / "out", ListSource(5), retry_errors=True, overwrite=True)


def test_the_command_tries_a_mended_url_of_a_list_again(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, good = fsspec.filesystem("memory"), (write_pile(tmp_path / "good", 1) / "0000.png").read_bytes()
    for name, content in (("a", good), ("b", good[:40]), ("d", good)):  # there is no c
        store.pipe_file(f"/mended/{name}.png", content)
    pile = tmp_path / "list.txt"
    pile.write_text("".join(f"memory://mended/{name}.png\n" for name in "abcd"))
    assert command_line.bulk(pile, tiny_bundle, "--shard-size", 2, "--progress", "auto") == exits.EXIT_ERROR_ROWS
    for name in "bc":
        store.pipe_file(f"/mended/{name}.png", good)
    assert command_line.bulk(pile, tiny_bundle, "--shard-size", 2) == exits.EXIT_ERROR_ROWS
    capsys.readouterr()
    options = ("--shard-size", 2, "--retry-errors", "--progress", "auto")
    assert command_line.bulk(pile, tiny_bundle, *options) == 0
    assert "error rows tried again: 2, with all 4 images of their files\n" in capsys.readouterr().err


def test_a_repaired_file_of_another_size_is_another_input(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pile = write_pile(tmp_path / "pile", 3, broken=[1])
    assert command_line.bulk(pile, tiny_bundle) == exits.EXIT_ERROR_ROWS
    (pile / "0001.png").write_bytes((pile / "0000.png").read_bytes())
    capsys.readouterr()
    assert command_line.bulk(pile, tiny_bundle, "--retry-errors") == exits.EXIT_ERROR
    assert "1 of another size (0001.png): choose another directory, or start over" in command_line.error_line(capsys)
