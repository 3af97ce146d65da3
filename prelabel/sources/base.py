"""The interface of a reader and what it yields."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from prelabel.errors import ImageError, StorageError
from prelabel.images import ImageSpec, Pixels, decode_image, fit_pixels
from prelabel.reading import reason
from prelabel.storage import Storage


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

    @property
    def content_bytes(self) -> int:
        """Size of `content`; 0 where there is none."""
        if self.content is None:
            return 0
        return len(self.content) if isinstance(self.content, bytes) else self.content.nbytes

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


@dataclass(frozen=True)
class PixelRows:
    """Images that need no decoding, column-wise: an object for each would cost more than the copy of its pixels."""

    ids: tuple[str, ...]
    """B ids."""
    paths: tuple[str, ...]
    """B paths."""
    pixels: Pixels
    """uint8 [B, h, w] or [B, h, w, c], 0..255; may be a view of the collection."""


@runtime_checkable
class PixelSource(Protocol):
    """What a collection has beside `Source` that holds pixels instead of image files."""

    def pixel_rows(self, start: int, stop: int) -> PixelRows:
        """Returns the images at positions start (included) to stop (excluded), fewer where there are no more."""


@runtime_checkable
class SectionedSource(Protocol):
    """What a collection has beside `Source` that is large to pickle: the names of a million files, for example."""

    def section(self, start: int, stop: int) -> Source:
        """Returns a source whose images start..stop, under the same positions, are those of this one."""


@runtime_checkable
class SpotSource(Protocol):
    """What a collection has beside `Source` whose manifest does not cover what is in its images."""

    def spots(self, count: int) -> list[range]:
        """Returns the positions of about `count` images, spread over the collection, that are fast to read."""


def spread(images: int, count: int) -> list[int]:
    """Returns `count` positions of `images`, evenly spaced; all where there are no more."""
    if images <= count:
        return list(range(images))
    return [(2 * i + 1) * images // (2 * count) for i in range(count)]


def section(source: Source, start: int, stop: int) -> Source:
    """Returns a source whose images start..stop are those of `source`, for sending it to another process."""
    return source.section(start, stop) if isinstance(source, SectionedSource) else source


def check_still_there(storage: Storage, name: str) -> None:
    """Raises `StorageError` if a file of many images cannot even be looked at any more, as when its disk is gone.

    As rows, all the images in it would be errors for ever.
    """
    try:
        storage.size_bytes(name)
    except OSError as error:
        raise StorageError(f"{storage.shown(name)} is gone: {reason(error)}; is its disk mounted?") from None
