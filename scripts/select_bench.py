"""Measures `prelabel select` against random choice, on labels that it does not see; writes docs/results/select.json.

For each data set, number of images and seed: how many classes the selected images cover, and how much of the pile their
labels get right by the nearest neighbour, on the features that the selection uses and on small pixels, which it does
not use. Beside `prelabel select` stand random choice, as many images of each class (for which one would need the
labels), and other ways to select, among which its method was chosen. Features are learnt once for a set; the seed
decides the rest.

And, on the predictions of `make demo`, how many of the next images are labelled wrong.

Usage: python -m scripts.select_bench
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tyro
from numpy.typing import NDArray

from prelabel.files import write_text_atomically
from prelabel.images import Pixels, fit_pixels
from prelabel.selection.clusters import Features, kmeans, nearest, representatives, squared_distances
from prelabel.selection.embed import COMPONENTS, embed
from prelabel.selection.look import SMALL
from prelabel.selection.next import By, NextConfig, select_next
from prelabel.sources import IdxSource
from prelabel.table import read_predictions
from scripts.composed_sets import SetName, compose
from scripts.provenance import provenance

COMMAND = "python -m scripts.select_bench"
OUTPUT = Path("docs/results/select.json")
MNIST = Path("data/mnist/train-images-idx3-ubyte.gz")
COUNTS = (20, 50, 100)
SETS: dict[str, int] = {"mnist": 20_000, "letters": 6000, "unbalanced-digits": 6000, "colour-digits-32": 6000,
                        "shapes-64": 3000}  # fmt: skip
"""Images of each set."""
NEXT_COUNTS = (50, 100, 500)
NEIGHBOURS = 20


@dataclass(frozen=True)
class Options:
    """Measure `prelabel select` against random choice."""

    seeds: int = 10
    """Selections of each kind."""
    sets: tuple[str, ...] = tuple(SETS)
    """Data sets."""
    predictions: Path = Path("runs/demo/predictions")
    """Output of `make demo`; nothing is written there."""


@dataclass(frozen=True)
class Pile:
    """What the methods may see of a set, and its labels, which only `balanced` may."""

    features: Features
    """float32 [n, 64] of `prelabel select`."""
    pixels: Features
    """float32 [n, 64], the main components of 16 x 16 pixels."""
    labels: NDArray[np.int64]
    """int64 [n]."""


Choose = Callable[[Pile, int, np.random.Generator], list[int]]


def main() -> None:
    """Measures and writes the results."""
    options = tyro.cli(Options, prog=COMMAND)
    results = []
    for name in options.sets:
        pile = load(name, SETS[name])
        for count in COUNTS:
            for method, choose in METHODS.items():
                found = [
                    measured(pile, choose(pile, count, np.random.default_rng([seed, count])))
                    for seed in range(options.seeds)
                ]
                results.append({"dataset": name, "count": count, "method": method, "selections": found})
                print(json.dumps({**results[-1], "selections": mean(found)}), flush=True)
    content = {**provenance(COMMAND), "images": {name: SETS[name] for name in options.sets}, "results": results}
    content["next"] = next_images(options.predictions, options.seeds)
    write_text_atomically(OUTPUT, json.dumps(content, indent=1) + "\n")


def next_images(predictions: Path, seeds: int) -> list[dict[str, Any]]:
    """Returns what share of the next images a model labels wrong: a right one would have been learnt from already."""
    source = IdxSource(MNIST)
    assert source.labels is not None
    wrong = np.array(read_predictions(predictions, ["label"])["label"].to_pylist(), int) != source.labels
    found = []
    for count in NEXT_COUNTS:
        shares = {
            by: float(wrong[list(select_next(predictions, count, NextConfig(by=by), None).rows)].mean())
            for by in get_args(By)
        }
        draws = [np.random.default_rng(seed).choice(len(wrong), count, replace=False) for seed in range(seeds)]
        found.append({"count": count, "random": float(np.mean([wrong[drawn].mean() for drawn in draws])), **shares})
    return found


def load(name: str, images: int) -> Pile:
    """Reads or composes a set; of MNIST, images drawn by seed 0 from the training split."""
    if name in get_args(SetName):
        split = compose(name, "train", 0, images)
        pixels, names = split.images, split.labels
    else:
        source = IdxSource(MNIST)
        assert source.labels is not None
        rows = np.random.default_rng(0).choice(len(source), images, replace=False)
        pixels, names = source.images[rows], tuple(map(str, source.labels[rows]))
    labels = np.unique([str(one) for one in names], return_inverse=True)[1].astype(np.int64)
    small = np.stack([fit_pixels(one, SMALL) for one in pixels])
    return Pile(embed(small, np.random.default_rng(0)), main_components(small), labels)


def main_components(small: Pixels) -> Features:
    """Returns float32 [n, 64]: uint8 [n, 16, 16, 3] in the directions in which they differ most."""
    flat = small.reshape(len(small), -1).astype(np.float32) / 255.0
    flat -= flat.mean(axis=0)
    directions = np.linalg.eigh(flat.T @ flat)[1][:, ::-1][:, :COMPONENTS]
    return (flat @ directions).astype(np.float32)


def measured(pile: Pile, chosen: list[int]) -> dict[str, float]:
    """Returns how many classes were covered, and what share of the pile the nearest chosen image labels right."""

    def accuracy(features: Features) -> float:
        return float((pile.labels[chosen][nearest(features, features[chosen])] == pile.labels).mean())

    return {
        "classes": len(np.unique(pile.labels[chosen])),
        "features": accuracy(pile.features),
        "pixels": accuracy(pile.pixels),
    }


def mean(selections: list[dict[str, float]]) -> dict[str, float]:
    """Returns the mean of each figure."""
    return {name: float(np.mean([one[name] for one in selections])) for name in selections[0]}


def at_random(pile: Pile, count: int, generator: np.random.Generator) -> list[int]:
    """What people do without `prelabel select`."""
    chosen: list[int] = generator.choice(len(pile.labels), count, replace=False).tolist()
    return chosen


def balanced(pile: Pile, count: int, generator: np.random.Generator) -> list[int]:
    """As many of each class, the first ones one more: as `--labels` draws, with labels that nobody has yet."""
    classes = np.unique(pile.labels)
    chosen: list[int] = []
    for i, k in enumerate(classes):
        wanted = count // len(classes) + (i < count % len(classes))
        chosen += generator.choice(np.flatnonzero(pile.labels == k), wanted, replace=False).tolist()
    return chosen


def select(pile: Pile, count: int, generator: np.random.Generator) -> list[int]:
    """What `prelabel select` does."""
    return representatives(pile.features, count, generator)[0]


def select_by_pixels(pile: Pile, count: int, generator: np.random.Generator) -> list[int]:
    """The same by pixels alone."""
    return representatives(pile.pixels, count, generator)[0]


def most_typical(pile: Pile, count: int, generator: np.random.Generator) -> list[int]:
    """TypiClust (Hacohen et al. 2022): of each cluster the image that is nearest to its 20 nearest neighbours there."""
    clusters = kmeans(pile.features, count, generator)
    chosen = []
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        distances = np.sqrt(squared_distances(pile.features[members], pile.features[members]))
        chosen.append(int(members[np.sort(distances, axis=1)[:, 1 : NEIGHBOURS + 1].sum(axis=1).argmin()]))
    return chosen


def spread(pile: Pile, count: int, generator: np.random.Generator) -> list[int]:
    """The draws of k-means++: each by its squared distance to those before."""
    return _one_by_one(
        pile, count, generator, lambda closest: int(generator.choice(len(closest), p=closest / closest.sum()))
    )


def farthest(pile: Pile, count: int, generator: np.random.Generator) -> list[int]:
    """Farthest first (k-center greedy): each the most remote of those before."""
    return _one_by_one(pile, count, generator, lambda closest: int(closest.argmax()))


def _one_by_one(
    pile: Pile, count: int, generator: np.random.Generator, choose: Callable[[NDArray[np.float64]], int]
) -> list[int]:
    chosen = [int(generator.integers(len(pile.labels)))]
    closest = np.full(len(pile.labels), np.inf)
    while len(chosen) < count:
        new = squared_distances(pile.features, pile.features[chosen[-1:]])[:, 0].astype(np.float64)
        closest = np.minimum(closest, new)
        chosen.append(choose(closest))
    return chosen


METHODS: dict[str, Choose] = {
    "random": at_random,
    "balanced": balanced,
    "select": select,
    "select by pixels": select_by_pixels,
    "most typical of each cluster": most_typical,
    "k-means++ draws": spread,
    "farthest first": farthest,
}


def first_table(result: dict[str, Any]) -> str:
    """Returns `prelabel select` beside random and balanced choice, and where it is no better than random."""
    lines = [
        "| set | images | classes covered: random | balanced | `select` | right: random | balanced | `select` | gain |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, count), found in _by_case(result).items():
        random, oracle, ours = (found[method] for method in ("random", "balanced", "select"))
        figures = [mean(one) for one in (random, oracle, ours)]
        differences = [100 * (a["pixels"] - b["pixels"]) for a, b in zip(ours, random, strict=True)]
        gain, error = float(np.mean(differences)), float(np.std(differences, ddof=1) / np.sqrt(len(differences)))
        cells = [
            name,
            str(count),
            *(f"{one['classes']:.1f}" for one in figures),
            *(f"{100 * one['pixels']:.1f} %" for one in figures),
            f"{gain:+.1f} ± {error:.1f}" + ("" if gain > 2 * error else " **not better**"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"`{result['command']}`, commit {result['commit'][:12]}."])


def methods_table(result: dict[str, Any]) -> str:
    """Returns all methods by the share that they get right, on the features of `select` and on pixels."""
    cases = _by_case(result)
    sets = list(dict.fromkeys(name for name, _ in cases))
    lines = [f"| {COUNTS[0]} / {COUNTS[-1]} images | {' | '.join(sets)} |", f"|---|{'---|' * len(sets)}"]
    for method in METHODS:
        cells = []
        for name in sets:
            few, many = (mean(cases[name, count][method]) for count in (COUNTS[0], COUNTS[-1]))
            cells.append(
                f"{100 * few['features']:.0f} / {100 * many['features']:.0f} %, "
                f"pixels {100 * few['pixels']:.0f} / {100 * many['pixels']:.0f} %"
            )
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def next_table(result: dict[str, Any]) -> str:
    """Returns how many of the next images are labelled wrong."""
    lines = ["| next images | random | `--by entropy` | `--by margin` |", "|---|---|---|---|"]
    for one in result["next"]:
        lines.append(
            f"| {one['count']} | {' | '.join(f'{100 * one[how]:.1f} %' for how in ('random', *get_args(By)))} |"
        )
    return "\n".join(lines)


def _by_case(result: dict[str, Any]) -> dict[tuple[str, int], dict[str, list[dict[str, float]]]]:
    cases: dict[tuple[str, int], dict[str, list[dict[str, float]]]] = {}
    for entry in result["results"]:
        cases.setdefault((entry["dataset"], entry["count"]), {})[entry["method"]] = entry["selections"]
    return cases


if __name__ == "__main__":
    main()
