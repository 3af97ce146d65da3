"""The page of `prelabel report` about `make demo`, with lanes from an audit that MNIST's hidden labels answer.

Writes the page and a picture of its beginning, docs/images/report.png, taken by a headless Chromium.
"""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from prelabel.audit.apply import ApplyConfig, apply
from prelabel.audit.draw import DrawConfig, draw
from prelabel.audit.pile import read_pile
from prelabel.audit.plan import write_plan
from prelabel.audit.suspects import SuspectConfig
from prelabel.report.make import Inputs, make_report
from prelabel.sources import IdxSource

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,1480")


@dataclass(frozen=True)
class Options:
    """Make the page about `make demo`, and its picture."""

    demo: Path = Path("runs/demo")
    """Output of `make demo`; nothing is written there."""
    images: Path = Path("data/mnist/train-images-idx3-ubyte.gz")
    """The pile, with its labels beside it."""
    page: Path = Path("runs/report.html")
    """The page."""
    picture: Path = Path("docs/images/report.png")
    """The picture."""
    chromium: str = "chromium"
    """The browser."""


def main() -> None:
    """Makes the page and the picture."""
    options = tyro.cli(Options, prog="python -m scripts.report_demo")
    pile = read_pile(options.demo / "predictions")
    truth = IdxSource(options.images).labels
    assert truth is not None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = draw(pile, DrawConfig())
        write_plan(folder, plan)
        lines = [f"{one},{pile.classes[truth[row]]}" for one, row in zip(plan.ids, plan.rows, strict=True)]
        (folder / "answers.csv").write_text("\n".join(["id,answer", *lines]) + "\n")
        apply(ApplyConfig(), SuspectConfig(), folder, folder / "answers.csv", pile.directory, folder / "lanes")
        inputs = Inputs(
            predictions=folder / "lanes",
            images=str(options.images),
            bundle=options.demo / "bundle",
            labels=str(options.images),
            duplicates=None,
            run=pile.directory,
        )
        options.page.parent.mkdir(parents=True, exist_ok=True)
        print(make_report(inputs, options.page, sample=len(pile), seed=0))
    picture = f"--screenshot={options.picture.absolute()}"
    subprocess.run([options.chromium, *FLAGS, picture, options.page.absolute().as_uri()], check=True)


if __name__ == "__main__":
    main()
