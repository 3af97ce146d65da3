"""Predictions with images, labels and names that try to break out of a page."""

import base64
import csv
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prelabel.report.make import Inputs, make_report
from prelabel.sources import FolderSource
from support.html import Page, parse
from support.piles import write_predictions

HOSTILE = (
    "<script>document.title='broken'</script>",
    '"quoted" & \'single\' onload="x"',
    "\u202ereversed",
    "\u05d0\u05d1 \U0001f989 \u65e5\u672c",
    "</style></bdi><img src=x onerror=alert(1)>",
    "$title ${style} {0} %s &amp;",
    "nul\x00 and\tescape\x1b",
)


@dataclass(frozen=True)
class PredictedFolder:
    """A folder of images and predictions about them."""

    images: Path
    predictions: Path
    ids: list[str]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    """float32 [N, K]."""
    truth: NDArray[np.int64]
    """int64 [N]."""

    def write_labels(self, path: Path) -> Path:
        """Writes the truth as CSV."""
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(
                [["id", "label"], *([i, self.classes[k]] for i, k in zip(self.ids, self.truth, strict=True))]
            )
        return path


def predicted_folder(
    directory: Path, count: int, classes: tuple[str, ...], side_px: int = 12, failed: dict[int, str] | None = None
) -> PredictedFolder:
    """Writes coloured images and random predictions, of which about one in five is wrong."""
    generator = np.random.default_rng(5)
    (directory / "images").mkdir(parents=True)
    for i in range(count):
        pixels = generator.integers(0, 256, (side_px, side_px + 3, 3), np.uint8)
        Image.fromarray(pixels).save(directory / f"images/{i:05d}.png")
    probabilities = generator.dirichlet(np.full(len(classes), 0.1), count).astype(np.float32)
    guess = probabilities.argmax(axis=1)
    other = generator.integers(0, len(classes), count)
    truth = np.where(generator.random(count) < 0.8, guess, other)
    ids = [f"{HOSTILE[i % len(HOSTILE)]}/{i}.png" for i in range(count)]
    write_predictions(
        directory / "predictions",
        probabilities,
        failed=failed,
        shard_size=100,
        ids=ids,
        classes=classes,
        manifest_hash=FolderSource(directory / "images").manifest_hash,
    )
    return PredictedFolder(directory / "images", directory / "predictions", ids, classes, probabilities, truth)


NOTHING = Inputs(Path(), None, None, None, None, None)
"""For `dataclasses.replace`."""


def page_of(inputs: Inputs, folder: Path, sample: int = 100_000, seed: int = 0) -> tuple[str, Page]:
    make_report(inputs, folder / "report.html", sample, seed)
    source = (folder / "report.html").read_text()
    page = parse(source)
    check(source, page)
    return source, page


def check(source: str, page: Page) -> None:
    """What holds for every page."""
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in {"style", "srcset"}], tag
        assert (attributes.get("href") or "#main").removeprefix("#") in ids
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name) in {None, *ids}
    assert all(one["alt"] for one in page.all("img"))
    assert all((one["src"] or "").startswith("data:image/") for one in page.all("img"))
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.elements}
    outside = re.sub(r'src="data:[^"]*"', "", source)
    assert "http:" not in outside
    assert "https:" not in outside
    assert "url(" not in outside
    assert "@import" not in outside
    (policy,) = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    for kind, blocks in (("script", page.scripts), ("style", page.styles)):
        (block,) = ["".join(blocks)]
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert len(page.all("script")) == len(page.all("style")) == len(page.all("main")) == 1
    assert page.all("a")[0]["href"] == "#main"


def shown(share: float, digits: int = 2) -> str:
    """Returns a share as the page shows it."""
    return f"{100 * share:.{digits}f}\u00a0%"
