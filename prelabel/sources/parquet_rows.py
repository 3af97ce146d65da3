"""Rows of a Parquet file's row groups as Python values, a few at a time."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prelabel.sources.columns import IMAGE_COLUMN
from prelabel.storage import printable

READ_ROWS = 256
"""Most rows that are unpacked at a time: a row group may hold a hundred thousand images."""

READ_BYTES = 64 << 20
"""About so many bytes of images are unpacked at a time: 256 photographs may be more than memory, or than the 2 GiB that
a column of Arrow holds in one piece."""


def rows_at_once(group: Any) -> int:
    """Returns how many rows of a row group (its metadata) are unpacked at a time."""
    columns = [group.column(i) for i in range(group.num_columns)]
    image_bytes: int = sum(
        one.total_uncompressed_size for one in columns if one.path_in_schema.split(".")[0] == IMAGE_COLUMN
    )
    return max(1, min(READ_ROWS, READ_BYTES * int(group.num_rows) // max(image_bytes, 1)))


def unpacked(
    opened: Any, columns: list[str], group: int, low: int, high: int, at_once: int
) -> Iterator[dict[str, Any]]:
    """Yields rows low..high of a row group as `_rows` does; raises what pyarrow does.

    Args:
        opened: A `pyarrow.parquet.ParquetFile`.
        columns: Those to read; the images are one of them.
        group: Number of the row group.
        low: First row in it.
        high: Row behind the last.
        at_once: Rows that are unpacked at a time.
    """
    position = 0
    for batch in opened.iter_batches(at_once, [group], columns):
        skipped = min(max(low - position, 0), batch.num_rows)
        position += skipped
        part = batch.slice(skipped, high - position)
        yield from _rows(part)
        position += part.num_rows
        if position >= high:
            return


def _rows(batch: Any) -> Iterator[dict[str, Any]]:
    """Yields a batch's rows, column name -> value; of an image in a struct its bytes, or its `_PathOnly`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = {name: batch.column(name) for name in batch.schema.names}
    images = columns.pop(IMAGE_COLUMN)
    paths = None
    if pa.types.is_struct(images.type):
        # Paths are looked at only where there is nothing else: writers put names in there that are not UTF-8.
        if images.type.get_field_index("path") >= 0:
            paths = pc.struct_field(images, "path")
        images = pc.struct_field(images, "bytes")
    values = {name: column.to_pylist() for name, column in columns.items()}
    for i, content in enumerate(images.to_pylist()):
        row = {name: column[i] for name, column in values.items()}
        yield row | {IMAGE_COLUMN: _PathOnly(paths[i]) if content is None and paths is not None else content}


@dataclass(frozen=True)
class _PathOnly:
    path: Any
    """An Arrow scalar."""

    def __str__(self) -> str:
        try:
            return str(self.path.as_py() or "")
        except UnicodeDecodeError:
            return printable(os.fsdecode(self.path.as_buffer().to_pybytes()))
