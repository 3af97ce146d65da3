"""Whose a run's folder is: what goes on in it, what is refused, what is removed."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from prelabel.errors import InputError, TrainingError
from prelabel.files import write_text_atomically
from support.datasets import write_idx_dataset
from support.short_runs import options
from training.__main__ import main
from training.checkpoint import list_checkpoints
from training.run import SAME_RUN, hold_folder, options_of
from training.train import train


def test_the_same_command_on_a_finished_run_trains_nothing(finished: tuple[Path, Path]) -> None:
    data, run = finished
    before = (run / "config.json").stat().st_mtime_ns
    assert train(options(data, run))["steps"] == 12
    assert (run / "config.json").stat().st_mtime_ns == before


def test_another_run_in_the_folder_is_refused(finished: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = finished
    with pytest.raises(InputError, match=r"a run with seed 0, not 5.*--overwrite"):
        train(options(data, run, seed=5))
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="holds other files"):
        train(options(data, tmp_path))
    assert (tmp_path / "mine.txt").exists()


def test_changed_data_is_not_resumed(finished: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = finished
    shutil.copytree(run, tmp_path / "run")
    other = write_idx_dataset(tmp_path / "data", train_count=243)
    with pytest.raises(InputError, match="a run with data whose manifest_hash is"):
        train(options(other, tmp_path / "run"))
    moved = shutil.copytree(data, tmp_path / "moved")
    assert train(options(moved, tmp_path / "run"))["steps"] == 12


@pytest.mark.parametrize(("name", "value"), [("augment", "natural"), ("pile_ramp", 0.16), ("labelled_batch", 96)])
def test_a_run_that_another_rule_began_is_finished_or_refused(
    finished: tuple[Path, Path], tmp_path: Path, name: str, value: object
) -> None:
    data, run = finished
    shutil.copytree(run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps({**config, name: value}))
    assert train(options(data, tmp_path / "run"))["steps"] == 12
    (tmp_path / "run" / "training.json").unlink()
    with pytest.raises(InputError, match=f"a run with {name} {value}, not {config[name]}"):
        train(options(data, tmp_path / "run"))


@pytest.mark.parametrize("content", ['{"architectures": ["Bert"]}', "no json"])
def test_a_config_of_somebody_else_is_never_touched(content: str, finished: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    (tmp_path / "model.bin").write_bytes(b"precious")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="not of a training run"):
            train(options(finished[0], tmp_path, overwrite=overwrite))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.bin"]


def test_overwrite_removes_nothing_before_the_data_is_read(finished: tuple[Path, Path], tmp_path: Path) -> None:
    run = shutil.copytree(finished[1], tmp_path / "run")
    with pytest.raises(InputError, match="does not exist"):
        train(options(tmp_path / "typo", run, overwrite=True))
    assert (run / "training.json").exists()
    assert list_checkpoints(run / "checkpoints")


def test_what_a_killed_process_left_of_its_first_file_is_nobody_s(finished: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / ".config.json.0123456789abcdef.tmp").write_text("{")
    assert train(options(finished[0], tmp_path, steps=1, preset="supervised"))["steps"] == 1


def test_a_folder_that_another_process_trains_into_is_refused(finished: tuple[Path, Path], tmp_path: Path) -> None:
    data, _ = finished
    with hold_folder(options(data, tmp_path)), pytest.raises(InputError, match="is being written by another"):
        train(options(data, tmp_path))


@pytest.mark.parametrize("name", SAME_RUN)
def test_a_checkpoint_of_another_run_is_not_gone_on_with(
    name: str, finished: tuple[Path, Path], tmp_path: Path
) -> None:
    data, run = finished
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "training.json").unlink()
    for path in list_checkpoints(tmp_path / "run" / "checkpoints"):
        with np.load(path, allow_pickle=False) as content:
            arrays = dict(content)
        meta = {**json.loads(str(arrays.pop("meta"))), name: "another"}
        np.savez(path, allow_pickle=False, meta=np.array(json.dumps(meta)), **arrays)
    with pytest.raises(TrainingError, match=f"is of another run: its {name} are not.*--overwrite"):
        train(options(data, tmp_path / "run"))


def test_overwrite_starts_over(finished: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = finished
    shutil.copytree(run, tmp_path / "run")
    summary = train(options(data, tmp_path / "run", steps=3, preset="supervised", overwrite=True))
    assert summary["steps"] == 3


def test_a_run_is_resumed_by_its_folder_alone(finished: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = finished
    assert options_of(run, None) == dataclasses.replace(options(data, run), progress="auto")
    assert options_of(run, tmp_path).data == tmp_path
    with pytest.raises(InputError, match="holds no training run"):
        options_of(tmp_path, None)


@pytest.mark.parametrize(
    ("arguments", "before", "by", "advice"),
    [
        (["--data", "data", "--output", "run"], False, False, "give the same command again"),
        (["--data", "data", "--output", "run"], False, True, "go on with `python -m training resume run`"),
        # What lies there may be another run, and this one has not removed it yet.
        (["--data", "data", "--output", "run", "--overwrite"], True, False, "give the same command again"),
        (
            ["--data", "data", "--output", "run", "--overwrite"],
            True,
            True,
            "go on with `python -m training resume run`",
        ),
        (["resume", "run"], True, False, "go on with `python -m training resume run`"),
        (["resume", "run"], False, False, "give the same command again"),
    ],
)
def test_who_interrupts_a_run_is_told_how_to_go_on(
    arguments: list[str],
    before: bool,
    by: bool,
    advice: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whether there was a run before, and whether the command had claimed the folder by then."""

    def interrupted(*_: object) -> None:
        if by:
            write_text_atomically(tmp_path / "run" / "config.json", "{}")
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["training", *arguments])
    monkeypatch.setattr("training.train.train", interrupted)
    monkeypatch.setattr("training.run.options_of", interrupted)
    (tmp_path / "run").mkdir()
    if before:
        write_text_atomically(tmp_path / "run" / "config.json", "{}")
    assert main() == 130
    assert f"interrupted: {advice}" in capsys.readouterr().err
