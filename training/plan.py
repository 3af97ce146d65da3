"""What a run does, decided from its options and its data before the first step."""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from training.augment import Kind, choose_kind, fitted
from training.config import Options
from training.dataset import Dataset, load_dataset
from training.prior import class_prior
from training.probe import pile_skill
from training.recipe import Recipe, labels_alone, overridden_changes
from training.trust import is_guarded, with_fitted_ramp, worth

logger = logging.getLogger(__name__)

SHOWN_SKIPPED = 5
"""Images that could not be used that are named in the log."""


@dataclass(frozen=True)
class Plan:
    """What a run does."""

    dataset: Dataset
    """What training may see, and what only evaluation may see."""
    kind: Kind
    """Of augmentation."""
    recipe: Recipe
    """As fitted to the data."""
    prior: NDArray[np.float32]
    """How frequent each class is in the pile, float32 [K], sum 1."""
    pile_weight: float | None = None
    """The largest factor on the pile's losses, 0..1; None where they need not earn their weight."""


def make_plan(options: Options, recipe: Recipe) -> Plan:
    """Reads the data, and fits the preset's recipe to it.

    Raises:
        InputError: An option or the data cannot be used.
    """
    dataset = load_dataset(
        options.data,
        label_count=options.labels,
        seed=options.seed,
        image_size=options.image_size,
        max_unlabelled=options.max_unlabelled,
        progress=options.progress,
    )
    data = dataset.training
    warn_of_skipped(dataset.skipped, "images")
    kind = options.augment
    if kind == "auto":
        kind = choose_kind(data.unlabelled, data.labelled, data.labels)
        if "recoloured" in kind:
            logger.info(
                "colours do not tell the labelled images' classes, so views take any hue; if they name classes, "
                "keep them: --augment natural, or digits where the ground is plain"
            )
    recipe = fitted(recipe, kind)
    recipe = with_fitted_ramp(recipe, len(data.labels), len(data.classes))
    for overridden in overridden_changes(options.change, options.recipe(), recipe):
        logger.warning("%s", overridden)
    prior = class_prior(options.class_prior, data.classes, data.labels)
    if options.class_prior == "labelled" and options.labels is not None:
        logger.warning("--class-prior labelled is balanced here: --labels draws the same number for each class")
    return Plan(dataset, kind, recipe, prior)


def weigh_pile(plan: Plan, options: Options, strategy: tf.distribute.Strategy) -> tuple[Plan, float]:
    """Finds out what the pile is worth, where that does not go without saying.

    Returns:
        The plan with the pile's weight, on the labels alone where that is 0; and the seconds that it took.
    """
    data, seconds = plan.dataset.training, 0.0
    if is_guarded(plan.kind, data.unlabelled, plan.recipe):
        known, seconds = pile_skill(options, data, plan.recipe, plan.kind, strategy)
        plan = dataclasses.replace(plan, pile_weight=worth(known))
        way = f"{100.0 * known.value:.0f} % of the way from chance to no errors, give or take {100.0 * known.error:.0f}"
        logger.info("of labels that it did not see, D knows %s; the pile weighs up to %.2g", way, plan.pile_weight)
        if plan.pile_weight == 0.0:
            plan = dataclasses.replace(plan, recipe=labels_alone(plan.recipe))
            hues = "recoloured" in plan.kind
            logger.warning(
                "these labels teach D too little to gain from the pile (%s): it learns from the labels alone, without "
                "a generator, and its realness says little; label more images%s",
                way, ", or, if colour names the classes, keep it: --augment natural, or digits" if hues else "",
            )  # fmt: skip
    recipe = plan.recipe
    if options.class_prior != "balanced" and not (
        recipe.information_weight or (recipe.consistency_weight and recipe.align)
    ):
        logger.warning(
            "--class-prior %s changes nothing here: no loss looks at how often a class is in the pile",
            options.class_prior,
        )
    return plan, seconds


def warn_of_skipped(skipped: Sequence[str], what: str) -> None:
    """Logs which images could not be used: some of them, and how many there are."""
    for reason in skipped[:SHOWN_SKIPPED]:
        logger.warning("skipped: %s", reason)
    if len(skipped) > SHOWN_SKIPPED:
        logger.warning("skipped: %d more, %d %s in all", len(skipped) - SHOWN_SKIPPED, len(skipped), what)
