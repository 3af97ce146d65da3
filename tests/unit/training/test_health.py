import numpy as np
import pytest

from training.health import SIGNS, Watch
from training.recipe import Recipe
from training.recorder import COLUMNS

BALANCED = np.full(3, 1 / 3, np.float32)
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
    watch = Watch(BALANCED)
    assert watch.look({**HEALTHY, **change, "step": 50.0}) == []
    (told,) = watch.look({**HEALTHY, **change})
    assert name in told
    assert watch.look({**HEALTHY, **change}) == []


def test_a_healthy_run_and_one_without_a_generator_are_left_alone() -> None:
    watch = Watch(BALANCED)
    assert watch.look(HEALTHY) == []
    assert watch.look({"step": 2000.0, "labelled_accuracy": 1.0}) == []


def test_a_pile_that_is_known_to_be_uneven_is_no_collapse() -> None:
    rare = np.array([0.95, 0.05], np.float32)
    right, collapsed = ({**HEALTHY, "class_entropy": entropy} for entropy in (0.29, 0.1))
    assert Watch(rare).look(right) == []
    assert len(Watch(rare).look(collapsed)) == len(Watch(BALANCED).look(right)) == 1


def test_the_advice_names_columns_and_fields_that_exist() -> None:
    for sign in SIGNS:
        assert set(sign.needs) <= set(COLUMNS)
        for word in sign.advice.replace(",", " ").split():
            if "=" in word:
                assert word.split("=")[0] in Recipe.__dataclass_fields__
