"""The interface of a reader and what it yields."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, cast

from prelabel.errors import ImageError
from prelabel.images import ImageSpec, Pixels, decode_image, fit_pixels


@dataclass(frozen=True)
class Sample:
    """One image of a collection, not yet decoded."""

    id: str
    """Unique within the collection and the same at every reading."""
    path: str
    """Where the image lies: a file path, with `#row` behind it where the file holds many images."""
    content: bytes | Pixels | None
    """Encoded file, or decoded pixels uint8 [h, w] or [h, w, c]; None where it could not be read."""
    label: str | None = None
    """Class name, where the collection gives one."""
    error: str | None = None
    """Why `content` is None."""

    def pixels(self, spec: ImageSpec) -> Pixels:
        """Returns the image as uint8 [H, W, C] of `spec`.

        Raises:
            ImageError: The image could not be read or cannot be decoded.
        """
        if self.content is None:
            raise ImageError(self.error or "could not be read")
        return decode_image(self.content, spec) if isinstance(self.content, bytes) else fit_pixels(self.content, spec)


class Source(Protocol):
    """A collection of images in a fixed order."""

    @property
    def manifest_hash(self) -> str:
        """Hexadecimal hash of what is in the collection, the same wherever it lies; each reader says what it covers."""

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yields name and size in bytes (-1 where unknown) of each file of the collection, to say what changed."""

    def __len__(self) -> int:
        """Number of images."""

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Yields the images at positions start (included) to stop (excluded), one `Sample` each, failed ones too."""


def section(source: Source, start: int, stop: int) -> Source:
    """Returns a source whose images start..stop are those of `source`, for sending it to another process.

    A source that is large to pickle, such as a list of a million files, has a method `section(start, stop)` for this.
    """
    cut = getattr(source, "section", None)
    return source if cut is None else cast(Source, cut(start, stop))
