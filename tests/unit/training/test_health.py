import numpy as np
import pytest

from training.health import SIGNS, Watch
from training.recipe import PRESETS, Recipe
from training.recorder import COLUMNS

BALANCED = np.full(3, 1 / 3, np.float32)
DEFAULT = PRESETS["default"]
HEALTHY = {
    "step": 2000.0,
    "labelled_accuracy": 1.0,
    "pseudo_confidence": 0.95,
    "class_entropy": 0.98,
    "realness_real": 0.8,
    "realness_fake": 0.4,
}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"class_entropy": 0.1}, "one class swallows the pile"),
        ({"labelled_accuracy": 0.4}, "the labels are not learnt"),
        ({"pseudo_confidence": 0.2}, "the pile stays undecided"),
        ({"realness_real": 0.999, "realness_fake": 0.001}, "D always wins"),
        ({"realness_real": 0.97, "realness_fake": 0.96}, "G always wins"),
    ],
)
def test_each_sign_is_told_once_and_not_at_the_start(change: dict[str, float], name: str) -> None:
    watch = Watch(BALANCED, DEFAULT)
    assert watch.look({**HEALTHY, **change, "step": 50.0}) == []
    (told,) = watch.look({**HEALTHY, **change})
    assert name in told
    assert watch.look({**HEALTHY, **change}) == []


def test_a_healthy_run_and_one_without_a_generator_are_left_alone() -> None:
    watch = Watch(BALANCED, DEFAULT)
    assert watch.look(HEALTHY) == []
    assert watch.look({"step": 2000.0, "labelled_accuracy": 1.0}) == []


def test_a_pile_that_is_known_to_be_uneven_is_no_collapse() -> None:
    rare = np.array([0.95, 0.05], np.float32)
    right, collapsed = ({**HEALTHY, "class_entropy": entropy} for entropy in (0.29, 0.1))
    assert Watch(rare, DEFAULT).look(right) == []
    assert len(Watch(rare, DEFAULT).look(collapsed)) == len(Watch(BALANCED, DEFAULT).look(right)) == 1


def test_labels_that_are_learnt_too_little_for_the_pile_are_told() -> None:
    two, four = np.full(2, 0.5, np.float32), np.full(4, 0.25, np.float32)
    row = {**HEALTHY, "labelled_accuracy": 0.74}  # half of the way from chance with two classes, more with four
    assert "the labels are not learnt" in Watch(two, DEFAULT).look(row)[0]
    assert Watch(four, DEFAULT).look(row) == []


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_a_pile_about_which_nothing_is_known_is_told_whatever_the_number_of_classes(classes: int) -> None:
    watch = Watch(np.full(classes, 1 / classes, np.float32), DEFAULT)
    assert watch.look({**HEALTHY, "pseudo_confidence": 0.5 + 0.5 / classes}) == []
    (told,) = watch.look({**HEALTHY, "pseudo_confidence": 1.05 / classes})
    assert "the pile stays undecided" in told


@pytest.mark.parametrize(
    ("preset", "change", "advice"),
    [
        ("default", {"class_entropy": 0.1}, ", or try --change information_weight=1 (3 now)"),
        ("book", {"class_entropy": 0.1}, ""),
        (
            "default",
            {"realness_real": 0.97, "realness_fake": 0.96},
            ", or try --change unsupervised_weight=1 (0.1 now)",
        ),
        ("book", {"realness_real": 0.97, "realness_fake": 0.96}, ""),
    ],
)
def test_what_the_recipe_has_already_is_not_advised(preset: str, change: dict[str, float], advice: str) -> None:
    (told,) = Watch(BALANCED, PRESETS[preset]).look({**HEALTHY, **change})
    assert ("--change" in told) == bool(advice)
    assert told.endswith(advice)


def test_the_advice_names_columns_and_fields_that_exist() -> None:
    for sign in SIGNS:
        assert set(sign.needs) <= set(COLUMNS)
        if sign.change is not None:
            assert sign.change[0] in Recipe.__dataclass_fields__
