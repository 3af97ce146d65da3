"""What a run does: the options of its command line."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from prelabel.errors import InputError
from training.recipe import PRESETS, Recipe, changed

Augment = Literal["auto", "none", "digits", "recoloured-digits", "natural", "recoloured"]


@dataclass(frozen=True)
class Options:
    """Train a semi-supervised GAN on a few labelled and many unlabelled images.

    Example: python -m training --data data/mnist --labels 100 --output runs/mnist

    An interrupted run goes on from its last checkpoint when the same command is given again, or by its folder alone:
    python -m training resume runs/mnist
    """

    data: Path
    """A folder with labelled/<class>/ and unlabelled/ (and test/<class>/), Parquet with columns `image` and `label`,
    tar shards, an .npz, a folder with train.npz (and test.npz), IDX files (train-*, t10k-*), or a .txt list; on a disk
    or at a URL."""
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
    """Side length in pixels that images are brought to. Default: as the data has it, from 16 to 64."""
    augment: Augment = "auto"
    """Kind of augmentation where the preset uses it: `digits` (shift, rotate, scale, shear on a plain background),
    `natural` (smaller moves, brightness and contrast), `recoloured-digits` and `recoloured` (the same in every hue),
    `none`; `auto` looks at the images' ground, and whether the labelled images' colours may tell their classes. Nothing
    flips. `digits` bends a little, the photographs' kinds blank a square; and these two kinds, `natural` and
    `recoloured`, have the step size, batch and last feature map of photographs, all others those of drawn things."""
    class_prior: str = "balanced"
    """How often each class is in the pile: `balanced`; `estimated`, balanced at first and then what D finds;
    `labelled`, as the labelled images have it; or numbers in the order of the class names, such as 0.7,0.2,0.1."""
    change: tuple[str, ...] = ()
    """Changes of the preset's recipe, for ablations: `--change norm=none learning_rate=2e-3`. training/recipe.py
    lists the fields."""
    strategy: Literal["none", "mirrored", "multi-worker"] = "none"
    """`mirrored`: all GPUs of this host; `multi-worker`: all hosts of TF_CONFIG, with the output folder on a disk that
    they share. The batch is cut into shares, so results are those of one device up to
    rounding, but for dropout (of `book` and `supervised`)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; `auto` takes bfloat16 on GPUs that have it. Weights are float32 in any case."""
    max_unlabelled: int = 200_000
    """Unlabelled images to keep in memory, spread over the pile; with `--labels` as many whose labels are hidden."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    evaluate_every: int = 250
    """Steps between evaluations on training images whose labels are hidden, for the curves only."""
    overwrite: bool = False
    """Remove the run that the folder holds, this one or another, and start over; its bundle and predictions stay until
    they are made again. Without it, an interrupted run goes on."""
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
        steps = [one for one in self.change if one.startswith("steps=")]
        for name, value in (("minutes", self.minutes), ("steps", self.steps)):
            if steps and value is not None:
                raise InputError(f"--change {steps[0]} and --{name} {value:g} exclude each other: give one of them")
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
