"""What a run does: the options of the command line and the recipes (presets) behind `--preset`."""

import dataclasses
import json
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from prelabel.errors import InputError

Augment = Literal["auto", "none", "digits", "recoloured-digits", "natural", "recoloured"]
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
    """What G minimises: -log D(G(z)) (Goodfellow 2014), or ||E h(x) - E h(G(z))||^2 (Salimans 2016, eq. 1)."""
    unsupervised_weight: float
    """Weight of the real-or-fake loss in D's loss."""
    consistency_weight: float
    """Weight of the cross-entropy between pseudo-labels (weak view, EMA) and predictions (strong view)."""
    temperature: float
    """Pseudo-label probabilities are raised to 1 / temperature and normalised; under 1 sharpens."""
    align: bool
    """Move the mean of the pseudo-labels to the class prior (distribution alignment, ReMixMatch)."""
    pile_ramp: float
    """Share of the run, 0..1, over which the weight of the losses on the pile's classes grows from 0, as the square.
    A pile that has to earn its weight grows as that says (training.trust)."""
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
    ),
}
# The book's comparison: the same trunk on the labels alone; 70 % with 100 labels, 98 % with 10,000.
PRESETS["supervised"] = labels_alone(PRESETS["book"])
# Each choice was made in short trials on hidden labels; docs/quality.md shows what each part adds.
PRESETS["default"] = Recipe(
    architecture="deep",
    # Batch statistics let D learn at three times the step size; the averaged D gets statistics of its own
    # (training.state.settle_statistics), since those of the student do not fit averaged weights.
    norm="batch",
    width=0.5,
    dropout=0.0,
    steps=5000,
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
        InputError: No such field, or a value of another type.
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
    return dataclasses.replace(recipe, **values)


@dataclass(frozen=True)
class Options:
    """Train a semi-supervised GAN on a few labelled and many unlabelled images.

    Example: python -m training --data data/mnist --labels 100 --output runs/mnist

    An interrupted run goes on from its last checkpoint when the same command is given again, or by its folder alone:
    python -m training resume runs/mnist
    """

    data: Path
    """A folder with IDX files (train-*, t10k-*), a folder with labelled/<class>/ and unlabelled/ (and test/<class>/),
    or a Parquet file or folder with columns `image` and `label`."""
    output: Path
    """The run's folder: config.json, metrics.csv, checkpoints, samples, curves.png, tensorboard."""
    labels: int | None = None
    """Draw this many labels, the same number for each class, and hide all others. Default: use all labels there are."""
    preset: Literal["default", "book", "supervised"] = "default"
    """`default`: the best recipe; `book`: chapter 7 of GANs in Action; `supervised`: the same trunk, labels alone."""
    seed: int = 0
    """Decides the label draw, the initial weights and every random number of the run."""
    steps: int | None = None
    """Number of training steps. Default: the preset's."""
    minutes: float | None = None
    """Time to train for, instead of `--steps`: the first steps are timed and the schedule is fitted to what is left."""
    image_size: int | None = None
    """Side length in pixels that images are brought to. Default: as the data has it, at most 64."""
    augment: Augment = "auto"
    """Kind of augmentation where the preset uses it: `digits` (shift, rotate, scale, shear on a plain background),
    `natural` (smaller moves, brightness and contrast), `recoloured-digits` and `recoloured` (the same in every hue),
    `none`; `auto` looks at the images' borders, and whether the labelled images' colours tell their classes. Nothing
    flips."""
    class_prior: str = "balanced"
    """How often each class is in the pile: `balanced`; `estimated`, balanced at first and then what D finds;
    `labelled`, as the labelled images have it; or numbers in the order of the class names, such as 0.7,0.2,0.1."""
    change: tuple[str, ...] = ()
    """Changes of the preset's recipe, for ablations: `--change norm=none learning_rate=2e-3`. training/config.py
    lists the fields."""
    strategy: Literal["none", "mirrored", "multi-worker"] = "none"
    """`mirrored`: all GPUs of this host; `multi-worker`: all hosts of TF_CONFIG, with the output folder on a disk that
    they share. The batch is cut into shares, so results are those of one device up to rounding."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; `auto` takes bfloat16 on GPUs that have it. Weights are float32 in any case."""
    max_unlabelled: int = 200_000
    """Unlabelled images to keep in memory, spread evenly over the pile."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    evaluate_every: int = 250
    """Steps between evaluations on training images whose labels are hidden, for the curves only."""
    overwrite: bool = False
    """Start over where the folder holds another run; its bundle and predictions stay until they are made again."""
    progress: Literal["auto", "json", "none"] = "auto"
    """How progress is shown."""

    def recipe(self) -> Recipe:
        """The preset with the options' changes.

        Raises:
            InputError: An option is out of its range.
        """
        limits = {
            "steps": (1, 10**9),
            "minutes": (0.1, 10**6),
            "labels": (1, 10**9),
            "image_size": (8, 512),
            "seed": (0, 2**31 - 1),
            "max_unlabelled": (1, 10**9),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InputError(f"--{name.replace('_', '-')} {value} is out of range: {low} to {high} wanted")
        if self.minutes is not None and self.steps is not None:
            raise InputError(
                f"--steps {self.steps} and --minutes {self.minutes:g} exclude each other: give one of them"
            )
        if min(self.checkpoint_every, self.evaluate_every) < 1:
            raise InputError("--checkpoint-every and --evaluate-every must be 1 or more")
        recipe = changed(PRESETS[self.preset], self.change)
        return recipe if self.steps is None else dataclasses.replace(recipe, steps=self.steps)

    def identity(self) -> dict[str, Any]:
        """What decides the run's result beside the data, for config.json: another identity is another run."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        for name in ("data", "output", "overwrite", "progress", "checkpoint_every"):
            del plain[name]
        return {**plain, "recipe": dataclasses.asdict(self.recipe())}


@dataclass(frozen=True)
class Resume:
    """Go on with an interrupted run, with the options that its folder records."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's folder."""
    data: Path | None = None
    """Where its data is now. Default: where it was."""
    progress: Literal["auto", "json", "none"] = "auto"
    """How progress is shown."""
