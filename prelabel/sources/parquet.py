"""Parquet files with image bytes: a binary column, or the Hugging Face struct of `bytes` and `path`."""

import hashlib
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import IO, Any

import numpy as np

from prelabel.errors import InputError
from prelabel.reading import readable_parquet, reason
from prelabel.sources.base import Sample, check_still_there, spread
from prelabel.sources.columns import (
    ID_COLUMN,
    IMAGE_COLUMN,
    LABEL_COLUMN,
    UNLABELLED,
    check_columns,
    check_ids,
    check_labels,
    check_numbered,
    check_text,
    class_names,
    filled_ids,
    row_id,
)
from prelabel.sources.parquet_rows import rows_at_once, unpacked
from prelabel.storage import Storage, printable

READ_AHEAD_BYTES = 1 << 20
"""Read of a file at a time: pyarrow by itself would read a column of a whole row group for the first row of it."""


@dataclass(frozen=True)
class _File:
    name: str
    path: str
    """As people see it."""
    size: int
    """Bytes."""
    start: int
    """Position of its first row in the whole collection."""
    group_rows: tuple[int, ...]
    footer_hash: bytes
    """SHA-256 of what describes the columns."""
    columns: tuple[str, ...]
    class_names: tuple[str, ...] | None

    @property
    def rows(self) -> int:
        return sum(self.group_rows)


class ParquetSource:
    """Rows of Parquet files in the order of the files; the `id` column, or `<file stem>/<row>`, is the id.

    Wanted columns: `image` (binary, or struct with `bytes`); optional: `label` (string, or integer with or without
    Hugging Face class names; null, -1 or "" where unknown) and `id` (string or integer, unique).
    """

    def __init__(self, storage: Storage, names: Sequence[str]) -> None:
        """Opens the files of these names. Reads everything but the images, and checks it.

        Raises:
            InputError: pyarrow is missing, a file cannot be read, a column is missing or of another type, a label has
                no class name, an id occurs twice, or the rows of two files would be numbered alike.
        """
        try:
            import pyarrow.parquet as pq
        except ImportError:
            raise InputError("reading Parquet needs pyarrow: pip install 'prelabel[parquet]'") from None
        self._storage = storage
        self._files: list[_File] = []
        ids, start = [], 0
        for name in names:
            path = storage.shown(name)
            # Files are opened again for reading: a data set may have more files than a process may hold open.
            with readable_parquet(path), storage.open(name) as opened, pq.ParquetFile(opened) as file:
                size = opened.seek(0, 2)
                check_columns(path, file.schema_arrow)
                columns = [name for name in (ID_COLUMN, IMAGE_COLUMN, LABEL_COLUMN) if name in file.schema_arrow.names]
                classes = class_names(path, file.schema_arrow)
                if LABEL_COLUMN in columns:
                    labels = file.read([LABEL_COLUMN])[LABEL_COLUMN]
                    check_text(path, LABEL_COLUMN, labels)
                    check_labels(path, labels, classes)
                if ID_COLUMN in columns:
                    own = file.read([ID_COLUMN])[ID_COLUMN]
                    check_text(path, ID_COLUMN, own)
                    ids.append(filled_ids(own, _stem(name)))
                groups, footer = _group_rows(file), _footer(opened)
            self._files.append(
                _File(name, path, size, start, groups, hashlib.sha256(footer).digest(), tuple(columns), classes)
            )
            start += sum(groups)
        check_ids(ids)
        check_numbered(ids, {_stem(file.name): file.rows for file in self._files if ID_COLUMN not in file.columns})
        self._check_stems()

    def _check_stems(self) -> None:
        stems: dict[str, _File] = {}
        for file in self._files:
            other = stems.setdefault(_stem(file.name), file)
            if other is not file and not (ID_COLUMN in file.columns and ID_COLUMN in other.columns):
                raise InputError(
                    f"{printable(other.name)} and {printable(file.name)} in {self._storage.shown()} would give the "
                    "same ids: rename one"
                )

    @property
    def ids_are_numbers(self) -> bool:
        """Whether ids are numbers of rows, in one file at least: they mean other images in other files of its name."""
        return any(ID_COLUMN not in file.columns for file in self._files)

    @property
    def manifest_hash(self) -> str:
        """Hash over file names, sizes and footers (row counts, column statistics); image bytes are not read."""
        digest = hashlib.sha256()
        for file in self._files:
            digest.update(os.fsencode(f"{file.name}\0{file.size}\0{file.rows}\n"))
            with readable_parquet(file.path), self._storage.open(file.name) as opened:
                digest.update(_footer(opened))
        return digest.hexdigest()

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yields name and size in bytes of each file."""
        return ((printable(file.name), file.size) for file in self._files)

    def spots(self, count: int) -> list[range]:
        """Returns the first rows of row groups, about `count` in all: a row costs all that come before it in its group.

        What is in the images the manifest covers only as far as their packed sizes tell it.
        """
        groups = [
            range(start, stop)
            for file in self._files
            for start, stop in pairwise(accumulate(file.group_rows, initial=file.start))
            if start < stop
        ]
        chosen = [groups[i] for i in spread(len(groups), count)]
        return [rows[: -(-count // len(chosen))] for rows in chosen]

    def __len__(self) -> int:
        return sum(file.rows for file in self._files)

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Yields rows start..stop; a row without bytes, or in a damaged part, is a `Sample` with an error.

        Raises:
            InputError: A file is gone or changed since it was opened.
            StorageError: A file is gone while it is read.
        """
        import pyarrow.parquet as pq

        for file in self._files:
            first, last = max(start - file.start, 0), min(stop - file.start, file.rows)
            if first >= last:
                continue
            with readable_parquet(file.path):
                content = self._storage.open(file.name)
                opened = pq.ParquetFile(content, buffer_size=READ_AHEAD_BYTES, pre_buffer=False)
            with content, opened:
                if hashlib.sha256(_footer(content)).digest() != file.footer_hash:
                    raise InputError(f"{file.path} is another file than it was when it was opened: start again")
                group_start = 0
                for group, rows in enumerate(file.group_rows):
                    low, high = max(first - group_start, 0), min(last - group_start, rows)
                    if low < high:
                        yield from _read_group(self._storage, opened, file, group, group_start, low, high)
                    group_start += rows


def _read_group(
    storage: Storage, opened: Any, file: _File, group: int, group_start: int, low: int, high: int
) -> Iterator[Sample]:
    """Yields rows low..high of a row group.

    Raises:
        InputError: This pyarrow does not read such files, as with codecs that it was built without.
        StorageError: The file is gone.
    """
    import pyarrow as pa

    position, at_once = low, rows_at_once(opened.metadata.row_group(group))
    while True:
        try:
            for row in unpacked(opened, list(file.columns), group, position, high, at_once):
                yield _sample(row, file, group_start + position)
                position += 1
            return
        except pa.ArrowNotImplementedError as error:
            if at_once == 1:
                raise InputError(f"{file.path}, row group {group}: pyarrow cannot read it: {reason(error)}") from None
            at_once = 1  # these rows are much larger than the others: over 2 GiB in a struct have to be read apart
        except (OSError, pa.ArrowException) as error:
            check_still_there(storage, file.name)
            yield from _lost(opened, file, group, group_start, position, high, reason(error))
            return


def _lost(opened: Any, file: _File, group: int, group_start: int, low: int, high: int, why: str) -> Iterator[Sample]:
    """Yields rows low..high of a damaged row group, whose images are lost; their rows are not."""
    # The ids were readable when the file was checked.
    ids = opened.read_row_group(group, [ID_COLUMN])[ID_COLUMN].to_pylist() if ID_COLUMN in file.columns else None
    for damaged in range(low, high):
        number = group_start + damaged
        identity = _identity(None if ids is None else ids[damaged], file, number)
        yield Sample(identity, f"{file.path}#{number}", None, None, f"row group {group} is damaged: {why}")


def _sample(row: dict[str, Any], file: _File, number: int) -> Sample:
    image = row[IMAGE_COLUMN]
    content = image if isinstance(image, bytes) else None
    error = None
    if content is None:
        named = "" if image is None else str(image)
        error = "the row holds no image bytes" + (
            f", only a path ({named!r}): list such paths in a .txt" if named else ""
        )
    label = row.get(LABEL_COLUMN)
    if label in ("", str(UNLABELLED)):  # what a table of strings has in the place of null and -1
        label = None
    if isinstance(label, int):
        label = None if label == UNLABELLED else file.class_names[label] if file.class_names else str(label)
    return Sample(
        id=_identity(row.get(ID_COLUMN), file, number),
        path=f"{file.path}#{number}",
        content=content,
        label=label,
        error=error,
    )


def _group_rows(file: Any) -> tuple[int, ...]:
    return tuple(file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups))


def is_table(name: str) -> bool:
    """True for names of Parquet files."""
    return posixpath.splitext(name)[1].lower() == ".parquet"


def _identity(value: Any, file: _File, number: int) -> str:
    return str(value) if value is not None else row_id(_stem(file.name), number)


def _stem(name: str) -> str:
    return printable(posixpath.splitext(name)[0])


def _footer(file: IO[bytes]) -> bytes:
    file.seek(-8, 2)
    length = int(np.frombuffer(file.read(4), "<u4")[0])
    file.seek(-8 - length, 2)
    return file.read(length)
