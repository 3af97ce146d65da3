"""The command line as a user sees it: help, one-line errors, exit statuses, `prelabel info`."""

import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from prelabel import __main__ as cli
from prelabel import __version__
from prelabel.adapters.label_studio.connection import LabelStudio
from prelabel.audit.apply import ApplyConfig
from prelabel.audit.draw import DrawConfig
from prelabel.audit.suspects import SuspectConfig
from prelabel.bulk import BulkConfig
from prelabel.commands import audit, backend, convert, exits, info, pull, push, report, sheet
from prelabel.commands import duplicates as duplicates_command
from prelabel.commands import labels as labels_command
from prelabel.commands import plan as plan_command
from prelabel.commands import run as run_command
from prelabel.commands import select as select_command
from prelabel.connection import Connection
from prelabel.duplicates.pairs import Near
from prelabel.ray_runner import ClusterOptions
from prelabel.selection.first import FirstConfig
from prelabel.selection.next import NextConfig
from prelabel.testing import FakeServer
from support.command_line import bulk, error_line, run
from support.samples import write_pile


@pytest.fixture
def pile(tmp_path: Path) -> Path:
    return write_pile(tmp_path / "pile", 9, broken=[4])


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_info:
        run(*arguments, "--help")
    assert exit_info.value.code == 0
    return capsys.readouterr().out


def test_help_lists_the_commands_in_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert re.findall(r"^  (\w+) ", text, re.MULTILINE) == [one.name for one in cli.COMMANDS]
    assert max(map(len, text.splitlines())) <= 120
    assert run() == exits.EXIT_ERROR
    assert capsys.readouterr().err == text


@pytest.mark.parametrize(
    "command",
    [
        *(one.name for one in cli.COMMANDS if one.name != "audit"),
        "audit draw",
        "audit apply",
        "audit report",
    ],
)
def test_the_help_of_a_command_holds_an_example_and_explains_every_option(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    text = help_of(capsys, *command.split())
    assert f"    prelabel {command} " in text
    lines = [line.strip("│| ") for line in text.splitlines()]
    explained = {}
    for line, following in itertools.pairwise(lines):
        if match := re.match(r"--([a-z][a-z-]*)", line):
            # The explanation stands behind the option, or below a long one.
            explained[match[1]] = line.split("  ", 1)[1].strip() if "  " in line else following
    fields = {
        "run": (run_command.Run, BulkConfig, Connection, ClusterOptions),
        "info": (info.Info, Connection),
        "sheet": (sheet.Sheet,),
        "plan": (plan_command.Plan, Connection),
        "duplicates": (duplicates_command.Duplicates, Near),
        "audit draw": (audit.Draw, DrawConfig),
        "audit apply": (audit.Apply, ApplyConfig, SuspectConfig),
        "audit report": (audit.Report,),
        "convert": (convert.Convert,),
        "report": (report.Report,),
        "push": (push.Push, LabelStudio),
        "pull": (pull.Pull, LabelStudio),
        "backend": (backend.ServeBackend, Connection),
        "select": (select_command.Select, FirstConfig, NextConfig),
        "labels": (labels_command.Labels,),
    }[command]
    names = {field.name.replace("_", "-") for one in fields for field in dataclasses.fields(one)}
    groups = {"bulk", "cluster", "connection", "what", "draw", "promise", "suspects", "near", "tool", "label-studio"}
    assert set(explained) == names - groups - {"first", "next"}
    assert all(one[0].isupper() for one in explained.values())


def test_the_help_of_run_explains_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, "run")
    for status in (0, exits.EXIT_ERROR, exits.EXIT_ERROR_ROWS, exits.EXIT_INTERRUPTED):
        assert f"\n    {status:<4} " in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"prelabel {__version__}\n"


@pytest.mark.parametrize("arguments", [["run", "--input", "x"], ["info"], ["run", "--speed", "9"]])
def test_wrong_usage_is_status_2(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        run(*arguments)
    assert exit_info.value.code == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "meant"), [("rnu", "run"), ("duplicate", "duplicates"), ("walk", None), ("--x", None)]
)
def test_an_unknown_command_is_one_line_with_the_nearest_one(
    word: str, meant: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(word, "--input", "x") == exits.EXIT_ERROR
    line = error_line(capsys)
    assert f"there is no command {word!r}" in line
    assert (f"did you mean {meant!r}?" if meant else "`prelabel --help` lists them") in line


def test_a_typo_in_an_option_is_answered_from_this_command_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("run", "--input", "x", "--output", "y", "--devcie", "cpu")
    text = capsys.readouterr().err
    assert "--device {auto,cuda,cpu}" in text
    assert "prelabel plan" not in text


@pytest.mark.parametrize(("name", "goes_on"), [("run", True), ("duplicates", False)])
def test_only_what_resumes_promises_to_go_on_after_an_interrupt(
    name: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "COMMANDS", [dataclasses.replace(one, execute=interrupted) for one in cli.COMMANDS])
    assert run(name, "--input", "x", "--output", "y") == exits.EXIT_INTERRUPTED
    line = capsys.readouterr().err
    assert line.startswith("interrupted")
    assert ("the same command again goes on" in line) == goes_on


def test_error_rows_are_status_3_and_counted(pile: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bulk(pile, tiny_bundle) == 3
    out = capsys.readouterr().out
    assert f"9 images in {pile.parent / 'out'}, 1 of them with errors" in out
    assert "\n    1 x not an image in a known format, or cut off in its header\n" in out
    assert "3 files written, 0 were there" in out
    assert "labels: low 8  middle 0  high 0" in out
    assert bulk(pile, tiny_bundle) == 3
    assert "0 files written, 3 were there" in capsys.readouterr().out


def test_paths_that_are_not_utf_8_can_be_shown(tmp_path: Path, tiny_bundle: Path) -> None:
    pile = write_pile(tmp_path / "caf\udce9", 2)
    command = ["run", "--input", pile, "--model", tiny_bundle, "--output", f"{pile}-out", "--runtime", "onnxruntime"]
    done = subprocess.run(
        [sys.executable, "-m", "prelabel", *command, "--progress", "none"],
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},  # as in most people's locales
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"2 images in %b/caf\\udce9-out, 0 of them with errors" % os.fsencode(tmp_path) in done.stdout


def test_with_progress_as_json_every_line_of_the_error_stream_is_an_object(pile: Path, tiny_bundle: Path) -> None:
    def events(*changes: object) -> list[dict[str, str]]:
        command = ["run", "--input", pile, "--model", tiny_bundle, "--output", pile.parent / "out", *changes]
        words = [sys.executable, "-m", "prelabel", *map(str, command), "--progress", "json"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return [json.loads(line) for line in done.stderr.splitlines()]

    whole = events()
    assert (whole[0]["event"], whole[-1]["event"]) == ("log", "summary")  # which engine was chosen
    refused = {"event": "error", "text": "input nowhere does not exist"}
    assert events("--input", "nowhere") == [refused]


def test_no_error_rows_are_status_0(tmp_path: Path, tiny_bundle: Path) -> None:
    assert bulk(write_pile(tmp_path / "pile", 3), tiny_bundle) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--input", "nowhere"], "input nowhere does not exist"),
        (["--model", "nowhere"], "nowhere holds no model bundle"),
        (["--server", "127.0.0.1:1"], "give either --server HOST:PORT or --model BUNDLE"),
        (["--limit", "0"], "--limit 0 is not usable"),
        (["--threads", "-1"], "--threads -1 is not usable: 0 or more is wanted"),
        (["--retry-for-s", "-1"], "--retry-for-s -1.0 is not usable: 0 or more is wanted"),
        (["--input", ""], "a path or URL is empty"),
        (["--output", ""], "a path or URL is empty"),
        (["--actors", "2"], "are of --runner ray"),
        (["--runner", "ray", "--actors", "0"], "--actors 0 is not usable"),
        (["--runner", "ray", "--num-gpus-per-actor", "2"], "--num-gpus-per-actor 2.0 is not usable"),
        (["--runner", "ray", "--num-gpus-per-actor", "0.5"], "--device cpu does not fit --num-gpus-per-actor 0.5"),
        (["--runner", "ray", "--server", "127.0.0.1:1"], "give --model BUNDLE and no --server"),
        (["--runner", "ray", "--decode-processes", "2"], "are not of --runner ray"),
        (["--runner", "ray", "--precision", "int8"], "the bundle does not allow --precision int8"),
    ],
)
def test_errors_are_one_line_and_status_2(
    pile: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str], changes: list[str], message: str
) -> None:
    assert bulk(pile, tiny_bundle, *changes) == 2
    assert message in error_line(capsys)


def test_neither_server_nor_model_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", "--input", write_pile(tmp_path / "pile", 1), "--output", tmp_path / "out") == 2
    assert "give either --server HOST:PORT or --model BUNDLE" in error_line(capsys)


def test_a_server_that_is_not_there_is_named(pile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer() as server:
        address = server.address
    output = pile.parent / "out"
    assert run("run", "--input", pile, "--server", address, "--output", output, "--retry-for-s", 0) == 2
    assert address in error_line(capsys)


def test_a_full_disk_is_one_line(
    pile: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_command, "run_bulk", refuse)
    assert bulk(pile, tiny_bundle) == 2
    assert "No space left on device" in error_line(capsys)


def test_an_interrupt_says_that_it_can_go_on(
    pile: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_command, "run_bulk", interrupt)
    assert bulk(pile, tiny_bundle) == 130
    assert "the same command again goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["-m", "prelabel"], ["-c", "import sys, prelabel.__main__ as m; sys.exit(m.main())"]]
)
def test_it_runs_as_a_module_and_as_a_script(command: list[str]) -> None:
    done = subprocess.run([sys.executable, *command, "info", "nowhere"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: nowhere does not exist and is no server address HOST:PORT\n"


def test_sheet_draws_the_predictions_of_just_these_images(
    pile: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bulk(pile, tiny_bundle) == exits.EXIT_ERROR_ROWS
    arguments = ("sheet", "--predictions", tmp_path / "out", "--output", tmp_path / "sheet.png")
    assert run(*arguments, "--input", pile) == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert len(sheet.getcolors(1 << 20)) > 10
    capsys.readouterr()
    (pile / "new.png").write_bytes(b"another")
    assert run(*arguments, "--input", pile) == exits.EXIT_ERROR
    assert "of another input" in error_line(capsys)
