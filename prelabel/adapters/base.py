"""What a format is: a name, what it does with images and error rows, and a function that writes it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prelabel.adapters.rows import Conversion


@dataclass(frozen=True)
class Format:
    """One format that predictions can be written in."""

    name: str
    """What `--to` calls it."""
    output: Literal["file", "folder"]
    """What it writes."""
    images: Literal["unused", "optional", "needed"]
    """Whether it can hold the images, or something of them, or cannot be without."""
    takes_prefix: bool
    """Whether it names images by an address, which `--image-url-prefix` makes."""
    write: Callable[[Path, Conversion], None]
    """Writes the items of a conversion to a path, whole or not at all, and reads them as a stream."""
