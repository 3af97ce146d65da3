"""What is in a WebDataset shard: which members make which sample, and where the shard is damaged.

Members whose names are the same up to the first dot of the base name belong together: `000.png` and `000.cls`.
(https://github.com/webdataset/webdataset: the file format.)
"""

import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from prelabel.images import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES
from prelabel.storage import printable

LABEL_SUFFIXES = ("cls", "json", "txt")
"""Members that may hold the label, the best first."""

NOT_A_FILE = -1
"""In place of a size: the member is a link, sparse, or no file at all."""

_BLOCK_BYTES = 512
_LOOK_BEHIND_BYTES = 64 << 10
"""How far behind the end mark is looked for more: writers fill up to 10 KiB with zeros."""


@dataclass(frozen=True)
class Entry:
    """One image of a shard."""

    id: str
    """The members' common name; with the suffix where a sample has several images; unique in the shard."""
    offset: int
    """First byte of the image in the shard."""
    size: int
    """Bytes of the image, or `NOT_A_FILE`."""
    label: tuple[int, int, int] | None
    """Position in `LABEL_SUFFIXES`, first byte and bytes of the member that holds the label."""


@dataclass
class _Group:
    key: str
    images: list[tuple[str, int, int]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    """Endings of images in formats that are not read."""
    labels: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass
class Findings:
    """What there is to tell about a shard; whole when all entries were taken."""

    damage: str | None = None
    """Why what follows the last entry cannot be read; None where the shard is whole."""
    beside: int = 0
    """Images that are taken for parts of another one: x.mask.png beside x.png."""
    first_beside: str = ""
    """Name of the first of them."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Ending of image files that are not read -> members, of samples without any image that is."""


def index(file: IO[bytes], size: int, findings: Findings) -> Iterator[Entry]:
    """Yields the images of a shard in their order; damage ends it early and is told in `findings`.

    Args:
        file: The shard, at its start.
        size: Its bytes.
        findings: What is filled in on the way.
    """
    seen: Counter[str] = Counter()
    group = _Group("")
    for name, offset, length in _members(file, size, findings):
        folder, base = posixpath.split(name)
        stem, _, suffix = base.partition(".")
        key = posixpath.join(folder, stem)
        if key != group.key:  # a sample's members lie next to each other
            yield from _entries(group, seen, findings)
            group = _Group(key)
        ending = f".{suffix.lower().rpartition('.')[2]}"
        if ending in IMAGE_SUFFIXES:
            group.images.append((suffix, offset, length))
        elif ending in OTHER_IMAGE_SUFFIXES:
            group.others.append(ending)
        elif suffix.lower() in LABEL_SUFFIXES and length != NOT_A_FILE:
            group.labels[suffix.lower()] = (offset, length)
    yield from _entries(group, seen, findings)


def _entries(group: _Group, seen: Counter[str], findings: Findings) -> Iterator[Entry]:
    if not group.images:  # beside x.jpg, x.heic is the same picture, and x.pgm a mask or a depth
        findings.left_out.update(group.others)
    # Beside x.png, x.mask.png is no image of its own. But x.v1.png and x.v2.png are, and so are x.png and x.jpg.
    images = [image for image in group.images if "." not in image[0]] or group.images
    for beside in [image for image in group.images if image not in images]:
        findings.beside += 1
        findings.first_beside = findings.first_beside or f"{group.key}.{beside[0]}"
    label = next(((i, *group.labels[one]) for i, one in enumerate(LABEL_SUFFIXES) if one in group.labels), None)
    for suffix, offset, size in images:
        identity = group.key if len(images) == 1 else f"{group.key}.{suffix}"
        seen[identity] += 1
        while seen[identity] > 1:  # names may repeat in a tar
            identity = f"{identity}@{seen[identity]}"
            seen[identity] += 1
        yield Entry(identity, offset, size, label)


def _members(file: IO[bytes], size: int, findings: Findings) -> Iterator[tuple[str, int, int]]:
    """Yields name, first byte and bytes of each member that is whole."""
    position = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                # It would keep a kilobyte for each. The attribute is missing in typeshed.
                archive.members.clear()  # type: ignore[attr-defined]
                if archive.offset <= position:  # a negative size leads back to what was read, for ever
                    raise tarfile.ReadError(f"the member {member.name!r} has the size {member.size}")
                regular = member.isreg() and not member.issparse()
                if regular and member.offset_data + member.size > size:
                    there = max(size - member.offset_data, 0)
                    findings.damage = (
                        f"cut short at byte {size}, within the member {printable(member.name)!r} ({there} of "
                        f"{member.size} bytes are there)"
                    )
                    return
                position = archive.offset
                name = printable(member.name.removeprefix("./"))
                hidden = any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))
                if member.isdir() or hidden:
                    continue
                yield name, member.offset_data, member.size if regular else NOT_A_FILE
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        findings.damage = f"damaged at byte {position}: {' '.join(str(error).split())}"
        return
    # tarfile takes a damaged header, as well as the end of the file, for the end of the archive.
    findings.damage = _what_follows(file, position, size)


def _what_follows(file: IO[bytes], position: int, size: int) -> str | None:
    file.seek(position)
    end = file.read(_BLOCK_BYTES)
    if len(end) < _BLOCK_BYTES:
        return f"cut short at byte {size}: the mark of the archive's end is missing"
    if any(end):
        return f"damaged at byte {position}: no header of a member"
    if any(file.read(_LOOK_BEHIND_BYTES)):
        return f"more data behind the mark of the archive's end at byte {position}: was a tar appended to another?"
    return None
