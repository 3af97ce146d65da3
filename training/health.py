"""Signs of a run that is going wrong, in its own metrics, and what to do about each."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.recipe import Recipe
from training.trust import LEARNT

Row = dict[str, float]


@dataclass(frozen=True)
class Sign:
    """One way in which a run goes wrong."""

    name: str
    after_step: int
    """Earlier than this it means nothing: every run starts like that."""
    needs: tuple[str, ...]
    """Columns of metrics.csv."""
    seen: Callable[[Row], bool]
    """In a row whose `class_entropy` is a share of what the class prior has, and which has `labelled_skill` and
    `pile_decided`: the accuracy and the confidence as shares of the way from chance (0) to certainty (1)."""
    advice: str
    change: tuple[str, float] | None = None
    """A field of the recipe, and a value that may help where it `lowers` the field, or else raises it."""
    lowers: bool = False


SIGNS = (
    Sign(
        "one class swallows the pile",
        500,
        ("class_entropy",),
        lambda row: row["class_entropy"] < 0.5,
        "most unlabelled images are put into few classes. If the pile really is like that, all is well; else look at "
        "the labelled images (wrong labels, a class missing)",
        ("information_weight", 1.0),
        lowers=True,
    ),
    Sign(
        "the labels are not learnt",
        1000,
        ("labelled_accuracy",),
        lambda row: row["labelled_accuracy"] < 0.7 or row["labelled_skill"] < LEARNT[0],
        "D gets its own labelled images wrong: look for contradicting labels, a class that looks like another at this "
        "--image-size, or an --augment that destroys what tells classes apart",
    ),
    Sign(
        "the pile stays undecided",
        1000,
        ("pseudo_confidence",),
        lambda row: row["pile_decided"] < 1 / 3,
        "D is unsure of most unlabelled images: they may belong to none of the classes, or need another --image-size "
        "or --augment",
    ),
    Sign(
        "D always wins",
        500,
        ("realness_real", "realness_fake"),
        lambda row: row["realness_real"] > 0.995 and row["realness_fake"] < 0.005,
        "generated images are told from real ones without effort, so they teach D nothing: look at samples.png",
        ("generator_learning_rate", 2e-3),
    ),
    Sign(
        "G always wins",
        500,
        ("realness_real", "realness_fake"),
        lambda row: row["realness_fake"] > 0.95 and row["realness_real"] > 0.95,
        "D takes all generated images for real, so `realness` will tell nothing",
        ("unsupervised_weight", 1.0),
    ),
)


class Watch:
    """Looks at each row of metrics and tells each sign once."""

    def __init__(self, prior: NDArray[np.float32], recipe: Recipe) -> None:
        """`prior`, float32 [K]: shares of the classes as they are expected in the pile; `recipe`: the run's."""
        self._told: set[str] = set()
        self._recipe, self._chance = recipe, 1.0 / len(prior)
        self._expected_entropy = float(-(prior * np.log(prior)).sum() / np.log(len(prior)))

    def look(self, row: Row) -> list[str]:
        """Returns a sentence for each sign that shows in this row for the first time."""
        expected = {
            **row,
            "class_entropy": row.get("class_entropy", 1.0) / self._expected_entropy,
            "labelled_skill": self._above_chance(row.get("labelled_accuracy", 1.0)),
            "pile_decided": self._above_chance(row.get("pseudo_confidence", 1.0)),
        }
        found = [
            sign
            for sign in SIGNS
            if sign.name not in self._told
            and row["step"] >= sign.after_step
            and all(name in row for name in sign.needs)
            and sign.seen(expected)
        ]
        self._told |= {sign.name for sign in found}
        return [
            f"step {row['step']:.0f}: {sign.name} ({', '.join(f'{n} {row[n]:.3f}' for n in sign.needs)}): {sign.advice}"
            f"{self._change(sign)}"
            for sign in found
        ]

    def _above_chance(self, share: float) -> float:
        return (share - self._chance) / (1.0 - self._chance)

    def _change(self, sign: Sign) -> str:
        """Returns what to change, where this recipe has not got it already."""
        if sign.change is None:
            return ""
        name, value = sign.change
        now = getattr(self._recipe, name)
        helps = now > value if sign.lowers else now < value
        return f", or try --change {name}={value:g} ({now:g} now)" if helps else ""
