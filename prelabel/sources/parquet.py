"""Parquet files with image bytes: a binary column, or the Hugging Face struct of `bytes` and `path`."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prelabel.errors import InputError
from prelabel.sources.base import Sample

IMAGE_COLUMN = "image"
LABEL_COLUMN = "label"
ID_COLUMN = "id"


class ParquetSource:
    """Rows of Parquet files in the order of the files; the `id` column, or `<file stem>/<row>`, is the id.

    Wanted columns: `image` (binary, or struct with `bytes`); optional: `label` (string, or integer with or without
    Hugging Face class names; null where unknown) and `id` (string).
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        try:
            import pyarrow.parquet
        except ImportError:
            raise InputError("reading Parquet needs pyarrow: pip install 'prelabel[parquet]'") from None
        self._paths = list(paths)
        self._files = []
        for path in self._paths:
            try:
                self._files.append(pyarrow.parquet.ParquetFile(path))
            except (OSError, pyarrow.ArrowException) as error:
                raise InputError(f"{path} is not a readable Parquet file: {error}") from None
            _check_columns(path, self._files[-1].schema_arrow)
        self._rows = [file.metadata.num_rows for file in self._files]
        # Position of each row group in the whole collection, so that a range reads only the groups that it needs.
        self._groups: list[tuple[int, int, int]] = []
        start = 0
        for number, file in enumerate(self._files):
            for group in range(file.metadata.num_row_groups):
                self._groups.append((start, number, group))
                start += file.metadata.row_group(group).num_rows

    @property
    def manifest_hash(self) -> str:
        """Hash over file names, sizes, row counts and footers (column statistics); image bytes are not read."""
        digest = hashlib.sha256()
        for path, file in zip(self._paths, self._files, strict=True):
            digest.update(f"{path.name}\0{path.stat().st_size}\0{file.metadata.num_rows}\n".encode())
            digest.update(_footer(path))
        return digest.hexdigest()

    def __len__(self) -> int:
        return int(sum(self._rows))

    def read(self, start: int, stop: int) -> Iterator[Sample]:
        """Yields rows start..stop; a row without bytes is a `Sample` with an error."""
        for group_start, number, group in self._groups:
            file = self._files[number]
            rows = file.metadata.row_group(group).num_rows
            first, last = max(start, group_start), min(stop, group_start + rows)
            if first >= last:
                continue
            columns = [name for name in (ID_COLUMN, IMAGE_COLUMN, LABEL_COLUMN) if name in file.schema_arrow.names]
            table = file.read_row_group(group, columns).slice(first - group_start, last - first)
            names = _class_names(file.schema_arrow)
            offset = sum(self._rows[:number])
            for position, row in enumerate(table.to_pylist(), first):
                yield _sample(row, self._paths[number], position - offset, names)


def _check_columns(path: Path, schema: Any) -> None:
    import pyarrow as pa

    if IMAGE_COLUMN not in schema.names:
        raise InputError(f"{path} has no column {IMAGE_COLUMN!r}: it has {', '.join(schema.names) or 'none'}")
    image = schema.field(IMAGE_COLUMN).type
    if pa.types.is_struct(image) and image.get_field_index("bytes") >= 0:
        image = image.field("bytes").type
    if not (pa.types.is_binary(image) or pa.types.is_large_binary(image)):
        raise InputError(f"{path}: column {IMAGE_COLUMN!r} is {image}, wanted are binary image files")
    if LABEL_COLUMN in schema.names:
        label = schema.field(LABEL_COLUMN).type
        if not (pa.types.is_string(label) or pa.types.is_large_string(label) or pa.types.is_integer(label)):
            raise InputError(f"{path}: column {LABEL_COLUMN!r} is {label}, wanted are class names or integers")


def _class_names(schema: Any) -> list[str] | None:
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return None
    label = json.loads(metadata).get("info", {}).get("features", {}).get(LABEL_COLUMN, {})
    names: list[str] | None = label.get("names")
    return names


def _sample(row: dict[str, Any], path: Path, number: int, names: list[str] | None) -> Sample:
    image = row[IMAGE_COLUMN]
    content = image["bytes"] if isinstance(image, dict) else image
    label = row.get(LABEL_COLUMN)
    if isinstance(label, int):
        # Hugging Face writes -1 where a split has no labels.
        label = None if label < 0 else names[label] if names else str(label)
    identity = row.get(ID_COLUMN)
    return Sample(
        id=str(identity) if identity is not None else f"{path.stem}/{number:06d}",
        path=f"{path}#{number}",
        content=content,
        label=label,
        error=None if content is not None else "the row holds no image bytes",
    )


def _footer(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-8, 2)
        length = int(np.frombuffer(file.read(4), "<u4")[0])
        file.seek(-8 - length, 2)
        return file.read(length)
