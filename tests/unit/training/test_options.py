"""Options and changes of a recipe that do not go together, or change nothing."""

import dataclasses
import gzip
import json
import logging
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prelabel.errors import InputError
from support.datasets import write_idx_dataset
from training import __main__ as command
from training.augment import fitted
from training.config import Options
from training.memory import too_little_memory
from training.plan import warn_of_skipped
from training.recipe import PRESETS, changed, overridden_changes
from training.train import train
from training.trust import with_fitted_ramp


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_idx_dataset(tmp_path_factory.mktemp("options") / "data")


def options(data: Path, output: Path, **changes: Any) -> Options:
    return Options(data, output, **{"labels": 6, "steps": 2, "progress": "none", **changes})


def test_adversarial_views_of_no_image_are_refused() -> None:
    with pytest.raises(InputError, match=r"adversarial_batch=0 is out of range: 1 or more, or adversarial_weight=0"):
        changed(PRESETS["default"], ("adversarial_batch=0",))
    assert changed(PRESETS["default"], ("adversarial_batch=0", "adversarial_weight=0")).adversarial_batch == 0
    assert changed(PRESETS["default"], ("unlabelled_batch=64",)).adversarial_batch == 64


def test_a_time_and_a_number_of_steps_exclude_each_other_however_they_are_given() -> None:
    chosen = Options(Path("data"), Path("run"), minutes=5.0, change=("steps=60",))
    with pytest.raises(InputError, match="--change steps=60 and --minutes 5 exclude each other"):
        chosen.recipe()
    with pytest.raises(InputError, match="--change steps=60 and --steps 1000 exclude each other"):
        dataclasses.replace(chosen, minutes=None, steps=1000).recipe()


def test_a_change_that_the_data_overrides_is_told_with_what_keeps_it() -> None:
    changes = ("labelled_batch=16", "pile_ramp=0.1", "dropout=0.1")
    given = changed(PRESETS["default"], changes)
    assert list(overridden_changes(changes, given, with_fitted_ramp(given, 1000, 10))) == []
    (ramp,) = overridden_changes(changes, given, with_fitted_ramp(given, 20, 10))
    assert "--change pile_ramp=0.1 has no effect, pile_ramp=0.02 is in force" in ramp
    assert "ramp_labels=0 keeps it" in ramp
    kept = changed(given, ("ramp_labels=0",))
    assert list(overridden_changes(changes, kept, with_fitted_ramp(kept, 20, 10))) == []
    (photographs,) = overridden_changes(changes, given, fitted(given, "natural"))
    assert "labelled_batch=96 is in force" in photographs
    assert "photo_labelled_batch" in photographs


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ((), "a smaller --image-size or `--change unlabelled_batch=64`, or set CUDA"),
        (("unlabelled_batch=64",), "`--change unlabelled_batch=32 adversarial_batch=32`"),
        (("unlabelled_batch=0", "adversarial_batch=0", "adversarial_weight=0"), "a smaller --image-size, or set CUDA"),
    ],
)
def test_the_way_out_of_too_little_memory_can_be_gone(change: tuple[str, ...], advice: str) -> None:
    recipe = changed(PRESETS["default"], change)
    said = str(too_little_memory("OOM when allocating\nand much more", recipe))
    assert advice in said
    assert "(OOM when allocating)" in said
    for words in re.findall(r"--change ([^`]*)`", said):
        changed(recipe, tuple(words.split()))


def test_errors_are_objects_where_progress_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(tmp_path / "none"), "--output", str(tmp_path / "run"), "--progress", "json"]
    monkeypatch.setattr(sys, "argv", ["training", *words])
    monkeypatch.setattr(command, "share_cores", lambda: None)
    assert command.main() == 2
    event = json.loads(capsys.readouterr().err)
    assert event["event"] == "error"
    assert "does not exist" in event["text"]


def test_the_book_without_a_generator_learns_from_the_labels(data: Path, tmp_path: Path) -> None:
    chosen = options(data, tmp_path / "run", preset="book", change=("generated_batch=0",))
    assert train(chosen)["steps"] == 2


def test_a_prior_that_no_loss_looks_at_is_told(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ready(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.train.build_state", ready)
    for preset in ("book", "default"):
        with pytest.raises(KeyboardInterrupt):
            train(options(data, tmp_path / preset, preset=preset, class_prior="1,2,1"))
        assert ("--class-prior 1,2,1 changes nothing here" in caplog.text) == (preset == "book")
        caplog.clear()


def test_corrected_labels_are_another_run(data: Path, tmp_path: Path) -> None:
    """The drawn labels' counts and the images stay the same, so that nothing else tells."""
    corrected = shutil.copytree(data, tmp_path / "data")
    train(options(data, tmp_path / "run", preset="supervised"))
    path = next(corrected.glob("train-labels*"))
    unpack = gzip.decompress if path.suffix == ".gz" else bytes
    content = np.frombuffer(unpack(path.read_bytes()), np.uint8).copy()
    content[8:] = (content[8:] + 1) % 3
    path.write_bytes(gzip.compress(content.tobytes()) if path.suffix == ".gz" else content.tobytes())
    with pytest.raises(InputError, match="a run with data whose labels_hash is"):
        train(options(corrected, tmp_path / "run", preset="supervised"))
    # A run of a version that did not record them goes on.
    config = json.loads((tmp_path / "run/config.json").read_text())
    del config["labels_hash"]
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    assert train(options(corrected, tmp_path / "run", preset="supervised"))["steps"] == 2


def test_of_many_images_that_cannot_be_used_some_are_named(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_skipped([f"{number}.png: broken" for number in range(5)], "images")
    assert [record.getMessage() for record in caplog.records] == [f"skipped: {n}.png: broken" for n in range(5)]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        warn_of_skipped([f"{number}.png: broken" for number in range(700)], "images of the test split")
    assert len(caplog.records) == 6
    assert caplog.records[-1].getMessage() == "skipped: 695 more, 700 images of the test split in all"
