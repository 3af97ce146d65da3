"""What a training step is made of: networks, losses and schedule, and the recipes (presets) behind `--preset`."""

import dataclasses
import math
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prelabel.errors import InputError

Norm = Literal["none", "batch", "weight"]


@dataclass(frozen=True)
class Recipe:
    """Networks, losses and schedule. The presets below give every value; a value is the same for every data set."""

    architecture: Literal["book", "deep"]
    """`book`: chapter 7's nets. `deep`: five convolutions, a smaller generator."""
    norm: Norm
    """Normalisation in D: `batch` statistics as in the book, `weight` (Salimans and Kingma 2016), or none."""
    width: float
    """Factor on the channels of the `deep` D; `book` has the book's."""
    dropout: float
    """Dropout rate before D's last layer, 0..1."""
    steps: int
    """Number of training steps."""
    labelled_batch: int
    """Labelled images in a step, drawn with equal chances for each class."""
    unlabelled_batch: int
    """Unlabelled images in a step; 0 trains on the labels alone."""
    generated_batch: int
    """Generated images in a step; 0 trains without a generator."""
    generator_loss: Literal["adversarial", "feature_matching"]
    """What G minimises: -log D(G(z)) (Goodfellow 2014), or ||E h(x) - E h(G(z))||^2 / F (Salimans 2016, eq. 1)."""
    unsupervised_weight: float
    """Weight of the real-or-fake loss in D's loss."""
    consistency_weight: float
    """Weight of the cross-entropy between pseudo-labels (weak view, EMA) and predictions (strong view)."""
    temperature: float
    """Pseudo-label probabilities are raised to 1 / temperature and normalised; under 1 sharpens."""
    align: bool
    """Move the mean of the pseudo-labels to the class prior (distribution alignment, ReMixMatch)."""
    pile_ramp: float
    """Share of the run, 0..1, over which the weight of the losses on the pile's classes grows from 0, as the square; it
    waits for the labels to be learnt (training.trust). 0: the whole weight at once. A pile that has to earn its weight
    grows as that says."""
    ramp_labels: float
    """Mean number of labels a class up to which the ramp has a fifth of its length; from twice as many on it is whole,
    in between a part of it. 0: whole with any number."""
    information_weight: float
    """Weight of the mutual information between the classes of a weak and a strong view (Ji et al. 2019, eq. 3)."""
    realness_gate: bool
    """Weigh unlabelled images in the mutual information by their realness: a pile may hold images of no class."""
    adversarial_weight: float
    """Weight of virtual adversarial training (Miyato et al. 2018) on weak views of unlabelled images."""
    adversarial_batch: int
    """Unlabelled images of a step whose neighbourhood is searched; at most `unlabelled_batch`."""
    adversarial_radius: float
    """Root mean square of the adversarial change of a pixel, in network range (-1..1)."""
    augment: bool
    """Augment the images that D classifies; the kind comes from `Options.augment`."""
    view_decay: float
    """Share of their strength, 0..1, that strong views lose over the second half of the run; photographs' lose none."""
    labelled_view: Literal["weak", "strong"]
    """Which view of a labelled image D learns from, where `augment` is set."""
    fused: bool
    """One D update on the sum of both losses, with one pass over all real images, instead of two updates."""
    learning_rate: float
    """Adam's step size at the start, for D; G's is `generator_learning_rate`, photographs' `photo_learning_rate`."""
    generator_learning_rate: float
    """Adam's step size for G."""
    adam_beta_1: float
    """Adam's first decay rate."""
    schedule: Literal["constant", "cosine"]
    """`cosine` decays the learning rates to 0 over the run."""
    ema_decay: float
    """Decay of the moving average of D's weights, at most (1 + t) / (10 + t) in step t; 0: no average."""
    latent_size: int = 100
    """Z: entries of the generator's normal noise."""
    feature_grid: int = 4
    """Largest height and width of the `deep` D's last feature map: where a stroke is tells as much as that it is there.
    Larger ones are pooled."""
    photo_learning_rate: float = 2e-3
    """`learning_rate` of photographs, for which images without a plain border are taken (training.augment). With three
    times as much D does not learn to leave aside what varies there beside the class: coloured digits, 500 labels alone,
    18 % errors, not 11."""
    photo_feature_grid: int = 1
    """`feature_grid` of photographs, where a thing may be anywhere: drawn shapes, 300 labels alone, 2,500 steps, 65 %
    errors at 4 and 50 % at 1."""
    photo_labelled_batch: int = 96
    """`labelled_batch` of photographs, whose few labels' gradients are noisier: two kinds of drawn things, 100 labels
    alone, 3,000 steps, 45 % errors with 32 and 19 % with 96."""


def overridden_changes(changes: Sequence[str], given: Recipe, in_force: Recipe) -> Iterator[str]:
    """Yields a sentence for each `name=value` of `changes` in whose place the data's own value is in force.

    Args:
        changes: As `--change` has them.
        given: The recipe with the changes.
        in_force: The recipe that is trained with.
    """
    few_labels = "it is shorter with few labels a class, ramp_labels=0 keeps it"
    of_photographs = (
        "images that are taken for photographs have photo_learning_rate, photo_labelled_batch and photo_feature_grid, "
        "and views that stay as strong; --augment digits would take them for drawn ones"
    )
    for change in changes:
        name = change.partition("=")[0]
        value = getattr(in_force, name)
        if getattr(given, name) != value:
            reason = few_labels if name == "pile_ramp" else of_photographs
            shown = f"{value:g}" if isinstance(value, float) else value
            yield f"--change {change} has no effect, {name}={shown} is in force: {reason}"


def labels_alone(recipe: Recipe) -> Recipe:
    """Returns the recipe of the same D without the pile and without a generator."""
    return dataclasses.replace(
        recipe,
        unlabelled_batch=0,
        generated_batch=0,
        unsupervised_weight=0.0,
        consistency_weight=0.0,
        information_weight=0.0,
        adversarial_weight=0.0,
        adversarial_batch=0,
    )


PRESETS: dict[str, Recipe] = {
    # Chapter 7 of GANs in Action: 89 % on MNIST's test set with 100 labels (10.6 % error in its one run).
    "book": Recipe(
        architecture="book",
        norm="batch",
        width=1.0,
        dropout=0.5,
        steps=8000,
        labelled_batch=32,
        unlabelled_batch=32,
        generated_batch=32,
        generator_loss="adversarial",
        unsupervised_weight=1.0,
        consistency_weight=0.0,
        temperature=1.0,
        align=False,
        pile_ramp=0.0,
        ramp_labels=0.0,
        information_weight=0.0,
        realness_gate=False,
        adversarial_weight=0.0,
        adversarial_batch=0,
        adversarial_radius=0.0,
        augment=False,
        view_decay=0.0,
        labelled_view="weak",
        fused=False,
        learning_rate=1e-3,
        generator_learning_rate=1e-3,
        adam_beta_1=0.9,
        schedule="constant",
        ema_decay=0.0,
        photo_learning_rate=1e-3,
        photo_labelled_batch=32,
    ),
}
# The book's comparison: the same trunk on the labels alone; 70 % with 100 labels, 98 % with 10,000.
PRESETS["supervised"] = labels_alone(PRESETS["book"])
# Each choice was made in short trials on hidden labels; docs/quality.md shows what each part adds.
PRESETS["default"] = Recipe(
    architecture="deep",
    # Batch statistics let D learn at three times the step size; the averaged D gets statistics of its own
    # (training.state.Settler), since those of the student do not fit averaged weights.
    norm="batch",
    width=0.5,
    dropout=0.0,
    steps=8000,
    labelled_batch=32,
    # Many unlabelled images for each labelled one: the pile is where the information is.
    unlabelled_batch=128,
    generated_batch=32,
    generator_loss="adversarial",
    unsupervised_weight=0.1,
    # No pseudo-labels: they freeze what the labels alone got wrong (confirmation bias). Mutual information asks only
    # that two views of an image are of one class and that classes are used; the few labels name the classes.
    consistency_weight=0.0,
    temperature=1.0,
    align=False,
    # First the labels: what the pile groups before D knows its classes by name, it keeps.
    pile_ramp=0.16,
    ramp_labels=5.0,
    information_weight=3.0,
    realness_gate=False,
    # Joins a style that no label shows (a seven with a bar) to the class that it lies next to.
    adversarial_weight=3.0,
    adversarial_batch=64,
    adversarial_radius=0.2,
    augment=True,
    # In the end D should fit images as they are: views as strong throughout cost it .05 points.
    view_decay=0.6,
    # With two labels a class, weak views let D tell classes by what tells just these images apart, such as a slant.
    labelled_view="strong",
    fused=True,
    learning_rate=6e-3,
    generator_learning_rate=1e-3,
    adam_beta_1=0.9,
    schedule="cosine",
    ema_decay=0.998,
)


def changed(recipe: Recipe, changes: tuple[str, ...]) -> Recipe:
    """Returns the recipe with fields set by `name=value`.

    Raises:
        InputError: No such field, or a value of another type or out of its range.
    """
    types = typing.get_type_hints(Recipe)
    values: dict[str, Any] = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in types:
            raise InputError(f"--change {change}: a recipe has no {name}; it has {', '.join(sorted(types))}")
        kind = types[name]
        choices = typing.get_args(kind) or (("true", "false") if kind is bool else ())
        try:
            if choices and text not in choices:
                raise ValueError(f"one of {', '.join(choices)} wanted")
            values[name] = text == "true" if kind is bool else text if choices else kind(text)
        except ValueError as error:
            raise InputError(f"--change {change}: {error}") from error
    recipe = dataclasses.replace(recipe, **values)
    for field in dataclasses.fields(Recipe):
        _check(recipe, field.name)
    return recipe


_POSITIVE = ("width", "temperature", "learning_rate", "generator_learning_rate", "photo_learning_rate")
_AT_LEAST_ONE = (
    "steps", "labelled_batch", "latent_size", "feature_grid", "photo_feature_grid",
    "photo_labelled_batch",
)  # fmt: skip
_BELOW_ONE = ("dropout", "adam_beta_1", "ema_decay")
_SHARES = ("pile_ramp", "view_decay")


def _check(recipe: Recipe, name: str) -> None:
    value = getattr(recipe, name)
    if isinstance(value, str | bool):
        return
    fits, wanted = math.isfinite(value) and value >= 0, "0 or more"
    if name in _POSITIVE:
        fits, wanted = math.isfinite(value) and value > 0, "more than 0"
    elif name in _AT_LEAST_ONE:
        fits, wanted = value >= 1, "1 or more"
    elif name in _BELOW_ONE:
        fits, wanted = 0 <= value < 1, "0 to less than 1"
    elif name in _SHARES:
        fits, wanted = 0 <= value <= 1, "0 to 1"
    elif name == "adversarial_batch":
        fits, wanted = 0 <= value <= recipe.unlabelled_batch, f"0 to unlabelled_batch, {recipe.unlabelled_batch},"
        if recipe.adversarial_weight and not value:
            fits, wanted = False, "1 or more, or adversarial_weight=0 with it,"
    if not fits:
        raise InputError(f"--change {name}={value} is out of range: {wanted} wanted")
