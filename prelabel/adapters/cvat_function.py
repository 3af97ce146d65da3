"""A CVAT auto-annotation function file: CVAT asks it about each image, `prelabel.cvat_tags` answers."""

from collections.abc import Iterator
from pathlib import Path

from prelabel import __version__
from prelabel.adapters.base import Format
from prelabel.adapters.rows import Conversion
from prelabel.adapters.text import write_lines

_FILE = '''"""CVAT auto-annotation function, written by prelabel {version}: tags from stored predictions, by file name.

    cvat-cli task auto-annotate TASK --function-file THIS_FILE

Images that the predictions do not hold are asked of a server or of a bundle, if one is named:
    -p server=str:127.0.0.1:50051    or    -p model=str:runs/mine/bundle
"""

from prelabel.cvat_tags import CvatTags


def create(server: str = "", model: str = "") -> CvatTags:
    return CvatTags({predictions!r}, {lanes!r}, {min_confidence!r}, server, model)
'''


def write(path: Path, conversion: Conversion) -> None:
    """Writes a Python file that reads the predictions where they lie; it answers error rows with no tag."""
    write_lines(path, _pieces(conversion))


def _pieces(conversion: Conversion) -> Iterator[str]:
    for _ in conversion.items(errors=True):
        pass  # counts, and says if nothing is left
    yield _FILE.format(
        version=__version__,
        predictions=str(conversion.predictions.directory.resolve()),
        lanes=conversion.selection.lanes,
        min_confidence=conversion.selection.min_confidence,
    )


FORMAT = Format("cvat-function", output="file", images="unused", takes_prefix=False, write=write)
