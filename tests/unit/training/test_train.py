"""The loop as its user meets it: files, resuming, hidden labels, divergence, time."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from prelabel.errors import InputError, TrainingError
from prelabel.storage import LOCK_FILE
from support.short_runs import options
from training import budget, loop, plan, probe
from training.checkpoint import list_checkpoints, load_checkpoint, read_meta
from training.dataset import Dataset, Evaluation, TrainingSet
from training.recorder import read_metrics
from training.state import build_state
from training.step import make_step
from training.train import resume, train
from training.trust import Skill


def weights(run: Path) -> dict[str, np.ndarray]:
    with np.load(list_checkpoints(run / "checkpoints")[-1]) as content:
        return {name: content[name] for name in content.files if name != "meta"}


def test_a_run_leaves_everything_that_the_readme_names(finished: tuple[Path, Path]) -> None:
    _, run = finished
    summary = json.loads((run / "training.json").read_text())
    assert 0 <= summary["test_accuracy"] <= 1
    assert (summary["labels"], summary["test_images"], summary["steps"]) == (6, 60, 12)
    config = json.loads((run / "config.json").read_text())
    assert config["classes"] == ["0", "1", "2"]
    assert config["label_counts"] == [2, 2, 2]
    assert config["pile_ramp"] == pytest.approx(0.032)  # two labels a class: a fifth of the ramp
    for name in ("curves.png", "samples.png", "samples/step-00000006.png"):
        with Image.open(run / name) as image:
            assert image.width > 100
    assert (run / "metrics.csv").read_text().count("\n") == 3
    assert list((run / "tensorboard").iterdir())


def test_a_checkpoint_carries_its_configuration(finished: tuple[Path, Path]) -> None:
    _, run = finished
    meta = read_meta(list_checkpoints(run / "checkpoints")[-1])
    assert (meta["step"], meta["options"]["labels"], meta["options"]["recipe"]["steps"]) == (12, 6, 12)


def test_an_interrupted_run_resumes_to_the_same_result(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, whole = finished
    run = tmp_path / "run"
    add_up, stops = loop.add_up, [5, 9]

    def interrupt(sums: Any, metrics: Any, number: int) -> None:
        add_up(sums, metrics, number)
        if stops and number == stops[0]:
            stops.pop(0)
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "add_up", interrupt)
    while stops:
        with pytest.raises(KeyboardInterrupt):
            train(options(data, run))
    monkeypatch.undo()
    train(options(data, run))
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    expected = weights(whole)
    for name, value in weights(run).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_hidden_labels_reach_nothing_but_the_evaluation(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every hidden label changed, the weights are the same to the last bit; only the curve for people differs."""
    data, whole = finished
    load = plan.load_dataset

    def falsified(*arguments: Any, **options: Any) -> Dataset:
        dataset = load(*arguments, **options)
        assert dataset.hidden is not None
        hidden = Evaluation(dataset.hidden.images, (dataset.hidden.labels + 1) % 3)
        return dataclasses.replace(dataset, hidden=hidden)

    monkeypatch.setattr(plan, "load_dataset", falsified)
    train(options(data, tmp_path / "run"))
    expected = weights(whole)
    for name, value in weights(tmp_path / "run").items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    rows, expected_rows = (read_metrics(run / "metrics.csv") for run in (tmp_path / "run", whole))
    differing = {name for a, b in zip(rows, expected_rows, strict=True) for name in a if a[name] != b[name]}
    assert differing == {"hidden_accuracy"}


def test_a_loss_that_is_not_finite_stops_with_step_and_losses(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = finished

    def poisoned(state: Any, *arguments: Any) -> Any:
        step = make_step(state, *arguments)

        def run(labelled: Any, unlabelled: Any, number: Any) -> Any:
            if int(number) == 6:
                kernel = state.discriminator.trainable_variables[0]
                kernel.assign(kernel * float("nan"))
            return step(labelled, unlabelled, number)

        return run

    monkeypatch.setattr("training.train.make_step", poisoned)
    with pytest.raises(TrainingError, match=r"diverged in step 7: .*loss_supervised nan"):
        train(options(data, tmp_path / "run", preset="supervised"))
    assert [read_meta(path)["step"] for path in list_checkpoints(tmp_path / "run/checkpoints")] == [4]


def test_a_device_with_too_little_memory_is_told_with_what_to_do(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_step(*_: Any) -> Any:
        # TensorFlow's own, of a tensor of a petabyte, comes after ten seconds of tries.
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[1125899906842624]")

    monkeypatch.setattr("training.train.make_step", make_step)
    with pytest.raises(TrainingError, match=r"device's memory \(.*OOM.*--image-size.*unlabelled_batch="):
        train(options(finished[0], tmp_path / "run"))


@pytest.mark.parametrize(
    "change",
    [{"steps": 0}, {"labels": 0}, {"seed": -1}, {"seed": 2**31}, {"image_size": 9999}, {"checkpoint_every": 0}],
)
def test_options_out_of_range_are_named(change: dict[str, int], finished: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=next(iter(change)).replace("_", "-")):
        train(options(finished[0], tmp_path / "run", **change))


def test_a_damaged_or_foreign_checkpoint_is_refused(
    finished: tuple[Path, Path], tmp_path: Path, make_training_set: Callable[..., TrainingSet]
) -> None:
    path = list_checkpoints(finished[1] / "checkpoints")[-1]
    cut = tmp_path / "step-00000001.npz"
    cut.write_bytes(path.read_bytes()[:1000])
    recipe = options(*finished).recipe()
    state = build_state(make_training_set(), recipe, 0)
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        load_checkpoint(cut, state)
    data = make_training_set()
    wider = TrainingSet(("a", "b", "c", "d"), data.spec, data.labelled, data.labels, data.unlabelled)
    with pytest.raises(TrainingError, match="of other networks"):
        load_checkpoint(path, build_state(wider, recipe, 0))


def test_a_damaged_last_checkpoint_costs_the_steps_since_the_one_before(
    finished: tuple[Path, Path], tmp_path: Path, make_training_set: Callable[..., TrainingSet]
) -> None:
    good, last = (tmp_path / f"step-0000000{number}.npz" for number in (1, 2))
    shutil.copy(list_checkpoints(finished[1] / "checkpoints")[-1], good)
    content = bytearray(good.read_bytes())
    content[len(content) // 2] ^= 0xFF
    last.write_bytes(content)
    state = build_state(make_training_set(), options(*finished).recipe(), 0)
    assert resume([good, last], state, read_meta(good))[0] == read_meta(good)["step"]
    with pytest.raises(TrainingError, match="--overwrite"):
        resume([last], state, read_meta(good))


def test_a_run_with_a_time_budget_ends_and_says_its_steps(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (budget, loop):
        monkeypatch.setattr(module, "TIMED_STEPS", (1, 3))
    monkeypatch.setattr(budget.Budget, "_fit", lambda *_: 7)
    summary = train(options(finished[0], tmp_path / "run", steps=None, minutes=5.0, preset="supervised"))
    assert summary["steps"] == 7
    meta = read_meta(list_checkpoints(tmp_path / "run" / "checkpoints")[-1])
    assert (meta["step"], meta["total_steps"]) == (7, 7)
    with pytest.raises(InputError, match="exclude each other"):
        train(options(finished[0], tmp_path / "other", minutes=5.0))


def test_a_wrong_class_prior_leaves_the_folder_free(finished: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 numbers over 0 wanted"):
        train(options(finished[0], tmp_path / "run", class_prior="1,2"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK_FILE]


@pytest.mark.parametrize(("skill", "pile"), [(Skill(0.2, 0.1), False), (Skill(0.6, 0.1), True)])
def test_photographs_learn_from_the_pile_where_labels_tell_enough(
    skill: Skill, pile: bool, finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "held_out_skill", lambda *_: skill)
    summary = train(options(finished[0], tmp_path / "run", augment="natural"))
    assert (tmp_path / "run" / "samples.png").exists() == pile
    assert summary["pile_weight"] == float(pile)


def test_a_run_measures_what_its_labels_teach_once(
    finished: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    monkeypatch.setattr(probe, "held_out_skill", lambda *_: measured.append(1) or Skill(0.2, 0.1))

    def ready(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.train.build_state", ready)
    chosen = options(finished[0], tmp_path / "run", augment="natural")
    with pytest.raises(KeyboardInterrupt):
        train(chosen)
    known = tmp_path / "run" / "skill.json"
    assert json.loads(known.read_text())["value"] == pytest.approx(0.2)
    for content, times in ((known.read_text(), 1), ("{", 2)):  # a file that cannot be read is made anew
        known.write_text(content)
        with pytest.raises(KeyboardInterrupt):
            train(chosen)
        assert len(measured) == times
    with pytest.raises(KeyboardInterrupt):
        train(dataclasses.replace(chosen, overwrite=True))
    assert len(measured) == 3
