"""Whose a run's folder is: what goes on in it, what is refused, what is removed."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from prelabel.errors import InputError
from support.datasets import write_idx_dataset
from support.short_runs import options
from training.checkpoint import list_checkpoints
from training.run import options_of
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


@pytest.mark.parametrize(("name", "value"), [("augment", "natural"), ("pile_ramp", 0.16)])
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


def test_overwrite_starts_over(finished: tuple[Path, Path], tmp_path: Path) -> None:
    data, _ = finished
    train(options(data, tmp_path / "run", steps=2))
    summary = train(options(data, tmp_path / "run", steps=3, overwrite=True))
    assert summary["steps"] == 3


def test_a_run_is_resumed_by_its_folder_alone(finished: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = finished
    assert options_of(run, None) == dataclasses.replace(options(data, run), progress="auto")
    assert options_of(run, tmp_path).data == tmp_path
    with pytest.raises(InputError, match="holds no training run"):
        options_of(tmp_path, None)
