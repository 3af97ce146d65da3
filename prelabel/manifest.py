"""What an input consisted of when its run began, kept beside the output, so that a later run can say what changed."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from prelabel.sources import Source
from prelabel.storage import Storage
from prelabel.table import require_pyarrow

MANIFEST_FILE = "_manifest.parquet"
"""Columns `name` and `size_bytes` (-1 where unknown): the input's files, in its order."""

_HASH_KEY = b"manifest_hash"
_ROWS_AT_ONCE = 65_536
_NAMES_SHOWN = 3


def write_manifest(output: Storage, source: Source, manifest_hash: str) -> None:
    """Writes the names and sizes of a source's files, and its hash; a million take a few megabytes."""
    pa = require_pyarrow()

    def write(file: Any) -> None:
        schema = _schema("size_bytes").with_metadata({_HASH_KEY: manifest_hash})
        with pa.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in _batches(source, schema):
                writer.write_batch(batch)

    output.write(MANIFEST_FILE, write)


def what_changed(output: Storage, manifest_hash: str, source: Source) -> str | None:
    """Says what is in a source now that was not there, or is gone, or of another size.

    Args:
        output: Where `write_manifest` wrote.
        manifest_hash: The input of that run: of another one nothing is known.
        source: The input as it is now.

    Returns:
        Such as `2 added (a.png, b.png), 1 removed (c.png)`; None where nothing is known.
    """
    pa = require_pyarrow()
    import pyarrow.compute as pc

    try:
        with output.open(MANIFEST_FILE) as opened, pa.parquet.ParquetFile(opened) as file:
            if (file.schema_arrow.metadata or {}).get(_HASH_KEY) != manifest_hash.encode():
                return None
            before = file.read(["name", "size_bytes"])
    except (OSError, pa.ArrowException):
        return None
    schema = _schema("size_now")
    now = pa.Table.from_batches(_batches(source, schema), schema)
    both = before.join(now, "name", join_type="full outer").sort_by("name")
    changed = {
        "added": pc.is_null(both["size_bytes"]),
        "removed": pc.is_null(both["size_now"]),
        "of another size": pc.not_equal(both["size_bytes"], both["size_now"]),
    }
    texts = [_text(both.filter(mask)["name"], how) for how, mask in changed.items() if pc.any(mask).as_py()]
    return ", ".join(texts) or "the same names and sizes, in another order or with other contents"


def _schema(sizes: str) -> Any:
    pa = require_pyarrow()
    return pa.schema([pa.field("name", pa.string()), pa.field(sizes, pa.int64())])


def _batches(source: Source, schema: Any) -> Iterator[Any]:
    pa = require_pyarrow()
    entries = source.entries()
    while some := list(islice(entries, _ROWS_AT_ONCE)):
        names, sizes = zip(*some, strict=True)
        yield pa.RecordBatch.from_arrays([pa.array(names, pa.string()), pa.array(sizes, pa.int64())], schema=schema)


def _text(names: Any, how: str) -> str:
    some = ", ".join(name.as_py() for name in names[:_NAMES_SHOWN])
    return f"{len(names):,} {how} ({some}{', ...' if len(names) > _NAMES_SHOWN else ''})"
