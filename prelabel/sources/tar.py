"""WebDataset shards: tar files whose members of one name make a sample; indexed once, then read in place."""

import copy
import hashlib
import json
import os
import posixpath
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from prelabel.errors import InputError
from prelabel.reading import readable, reason
from prelabel.sources.base import Sample, check_still_there, spread
from prelabel.sources.names import Names
from prelabel.sources.tar_index import LABEL_SUFFIXES, NOT_A_FILE, Entry, Findings, index
from prelabel.storage import MAX_FILE_BYTES, Storage, printable

MAX_LABEL_BYTES = 64 << 10
"""A larger label member is no label."""

MAX_TEXT_LABEL = 100
"""Characters of a .txt that is a class name: longer ones are captions."""

_NO_LABEL = -1

_COMPRESSED = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of files that are packed as a whole, in which no image has a place of its own."""


_PACKED_SUFFIXES = (
    ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tbz", ".tar.lz4"
)  # fmt: skip


@dataclass
class _Shard:
    """The index of one tar file: 41 bytes for each image, and its name."""

    name: str
    size: int
    start: int
    """Position of its first image in the whole collection."""
    ids: Names = field(default_factory=Names)
    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    label_kinds: "array[int]" = field(default_factory=lambda: array("b"))
    label_offsets: "array[int]" = field(default_factory=lambda: array("q"))
    label_sizes: "array[int]" = field(default_factory=lambda: array("q"))
    damage: str | None = None

    def add(self, entry: Entry) -> None:
        self.ids.append(entry.id)
        self.offsets.append(entry.offset)
        self.sizes.append(entry.size)
        kind, offset, size = entry.label or (_NO_LABEL, 0, 0)
        self.label_kinds.append(kind)
        self.label_offsets.append(offset)
        self.label_sizes.append(size)

    @property
    def rows(self) -> int:
        return len(self.ids) + (self.damage is not None)


class TarSource:
    """Images of tar files in the order of the files and of their members; `<tar's stem>/<key>` is the id.

    The label is in the member `.cls` (a number or name), `.json` (its `label`), or `.txt` (one short line), in this
    order. A tar that is cut short or damaged gives the images before the damage and one sample more, an error that says
    where; so nothing is lost without a row.
    """

    def __init__(self, storage: Storage, names: Sequence[str]) -> None:
        """Reads the headers of all members.

        Raises:
            InputError: A tar file cannot be opened, two would give the same ids, or all there is is damage.
        """
        self._storage = storage
        self._shards: list[_Shard] = []
        self.left_out: Counter[str] = Counter()
        """Ending of image files that are not read -> members."""
        self.beside, self.first_beside = 0, ""
        """Images that are taken for parts of another one, such as masks; and the name of one."""
        start = 0
        for name in names:
            shard = self._read_index(name, start)
            self._shards.append(shard)
            start += shard.rows
        damages = [shard.damage for shard in self._shards if shard.damage]
        if damages and not any(len(shard.ids) for shard in self._shards):
            raise InputError(f"no image can be read: {damages[0]}")
        stems: dict[str, str] = {}
        for shard in self._shards:
            if (other := stems.setdefault(_stem(shard.name), shard.name)) != shard.name:
                raise InputError(
                    f"{printable(other)} and {printable(shard.name)} in {storage.shown()} would give the same "
                    "ids: rename one"
                )

    def _read_index(self, name: str, start: int) -> _Shard:
        findings = Findings()
        with readable(f"{self._storage.shown(name)} cannot be read", OSError):
            shard = _Shard(name, self._storage.size_bytes(name), start)
            with self._storage.open(name) as file:
                first = file.read(max(map(len, _COMPRESSED)))
                if packed := next((how for start, how in _COMPRESSED.items() if first.startswith(start)), None):
                    raise InputError(f"{self._storage.shown(name)} is packed by {packed}: unpack it to a plain .tar")
                file.seek(0)
                for entry in index(file, shard.size, findings):
                    shard.add(entry)
        self.left_out += findings.left_out
        self.beside += findings.beside
        self.first_beside = self.first_beside or findings.first_beside
        if findings.damage is not None:
            shard.damage = f"{self._storage.shown(name)} is {findings.damage}; what follows is lost: get the file again"
        return shard

    @property
    def manifest_hash(self) -> str:
        """Hash over the tar files' names and sizes and their images' names and places; contents are not read."""
        digest = hashlib.sha256()
        for shard in self._shards:
            digest.update(os.fsencode(f"{shard.name}\0{shard.size}\0{shard.rows}\n"))
            for i, name in enumerate(shard.ids):
                digest.update(os.fsencode(f"{name}\0{shard.offsets[i]}\0{shard.sizes[i]}\n"))
        return digest.hexdigest()

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yields name and size in bytes of each tar file."""
        return ((printable(shard.name), shard.size) for shard in self._shards)

    def section(self, start: int, stop: int) -> "TarSource":
        """Returns a source for reading images start..stop, and no others: it is small to send to another process."""
        section = copy.copy(self)
        section._shards = [one for one in self._shards if one.start < stop and start < one.start + one.rows]
        return section

    def spots(self, count: int) -> list[range]:
        """Returns the positions of `count` images, one by one: the manifest does not cover what is in them."""
        return [range(i, i + 1) for i in spread(len(self), count)]

    def __len__(self) -> int:
        return sum(shard.rows for shard in self._shards)

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Yields images start..stop; one that is a link, or cannot be read any more, is a `Sample` with an error.

        Raises:
            InputError: A tar file is gone, or of another size, since its headers were read.
            StorageError: It is gone while it is read.
        """
        for shard in self._shards:
            first, last = max(start - shard.start, 0), min(stop - shard.start, shard.rows)
            if first >= last:
                continue
            images = min(last, len(shard.ids))
            if first < images:
                with readable(f"{self._storage.shown(shard.name)} cannot be read any more", OSError):
                    file = self._storage.open(shard.name)
                with file:
                    if file.seek(0, os.SEEK_END) != shard.size:
                        raise InputError(
                            f"{self._storage.shown(shard.name)} is another file than it was when it was opened: "
                            "start again"
                        )
                    for i in range(first, images):
                        yield self._sample(file, shard, i)
            if last > images:
                # No image is called so: their ids have a slash behind the stem.
                yield Sample(f"{_stem(shard.name)}#damage", self._storage.shown(shard.name), None, None, shard.damage)

    def _sample(self, file: IO[bytes], shard: _Shard, i: int) -> Sample:
        identity = f"{_stem(shard.name)}/{shard.ids[i]}"
        path = f"{self._storage.shown(shard.name)}#{shard.ids[i]}"
        if shard.sizes[i] == NOT_A_FILE:
            return Sample(identity, path, None, None, "cannot be read: not a regular file in the tar")
        if shard.sizes[i] > MAX_FILE_BYTES:
            why = f"{shard.sizes[i]} bytes are over the limit of {MAX_FILE_BYTES} bytes"
            return Sample(identity, path, None, None, f"cannot be read: {why}")
        try:
            content = _read(file, shard.offsets[i], shard.sizes[i])
            label, kind = None, shard.label_kinds[i]
            if kind != _NO_LABEL and shard.label_sizes[i] <= MAX_LABEL_BYTES:
                label = parse_label(LABEL_SUFFIXES[kind], _read(file, shard.label_offsets[i], shard.label_sizes[i]))
            return Sample(identity, path, content, label)
        except OSError as error:
            check_still_there(self._storage, shard.name)
            return Sample(identity, path, None, None, f"cannot be read: {reason(error)}")


def is_tar(name: str) -> bool:
    """True for names of tar files."""
    return posixpath.splitext(name)[1].lower() == ".tar"


def is_packed_tar(name: str) -> bool:
    """True for names of tar files that are packed as a whole, which are not read."""
    return name.lower().endswith(_PACKED_SUFFIXES)


def parse_label(suffix: str, content: bytes) -> str | None:
    """Returns the class name that a member `.cls`, `.json` or `.txt` holds, None where it holds none."""
    try:
        text = content.decode().strip()
        if suffix == "json":
            value: Any = json.loads(text)
            value = value.get("label") if isinstance(value, dict) else value
            text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    except (ValueError, RecursionError):
        return None
    if text == "-1" or (suffix == "txt" and ("\n" in text or len(text) > MAX_TEXT_LABEL)):
        return None
    return text or None


def _stem(name: str) -> str:
    return printable(posixpath.splitext(posixpath.basename(name))[0])


def _read(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    content = file.read(size)
    if len(content) < size:
        raise OSError("the tar file is shorter than it was")
    return content
