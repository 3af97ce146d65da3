"""What an input consisted of when its run began, kept beside the output, so that a later run can say what changed.

Names and sizes do not tell everything: uncompressed frames of one camera have the same in every folder. So hashes of
some images are kept, too, and compared where the input of a later run lies elsewhere.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from prelabel.lookahead import map_ahead
from prelabel.sources import Source, SpotSource
from prelabel.storage import Storage, is_url, printable
from prelabel.table import require_pyarrow

MANIFEST_FILE = "_manifest.parquet"
"""Columns `name` and `size_bytes` (-1 where unknown): the input's files, in its order."""

CHECKED_IMAGES = 64
"""About so many images are read and hashed, which takes a fraction of a second."""
CHECKED_BYTES = 256 << 20
"""Of large images fewer: as many as have so many bytes."""
_CHECK_THREADS = 8
"""Images of an object store come one by one otherwise, at tens of milliseconds each."""

_HASH_KEY = b"manifest_hash"
_INPUT_KEY = b"input"
_CONTENTS_KEY = b"contents"
"""JSON object: position in the input -> SHA-256 of the image there."""
_ROWS_AT_ONCE = 65_536
_NAMES_SHOWN = 3


def write_manifest(output: Storage, source: Source, manifest_hash: str, input_name: str) -> None:
    """Writes names and sizes of a source's files, its hash, and those of some images; a million files take a few MB.

    Args:
        output: Where to.
        source: The input.
        manifest_hash: Its hash.
        input_name: Its path or URL, as the user gave it.

    Raises:
        InputError: The input cannot be read any more.
        StorageError: The object store does not answer, or a disk is gone.
        OSError: The file cannot be written.
    """
    pa = require_pyarrow()
    contents = {position: digest for position, (_, digest) in _contents(source).items()}
    about = {_HASH_KEY: manifest_hash, _INPUT_KEY: _place(input_name), _CONTENTS_KEY: json.dumps(contents)}

    def write(file: Any) -> None:
        schema = _schema("size_bytes").with_metadata(about)
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

    if _metadata(output).get(_HASH_KEY) != manifest_hash.encode():
        return None
    try:
        with output.open(MANIFEST_FILE) as opened, pa.parquet.ParquetFile(opened) as file:
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


def other_contents(output: Storage, manifest_hash: str, source: Source, input_name: str) -> tuple[str, str] | None:
    """Looks for other images under the names and sizes of an earlier run, where they lie at another place.

    Args:
        output: Where `write_manifest` wrote.
        manifest_hash: The hash of that run's input and of this one's.
        source: This run's input.
        input_name: Its path or URL, as the user gave it.

    Returns:
        The path or URL of the earlier input, and how the images differ; None where they do not, as far as is known.

    Raises:
        InputError: The input cannot be read any more.
        StorageError: The object store does not answer, or a disk is gone.
    """
    about = _metadata(output)
    there, now = about.get(_INPUT_KEY, b"").decode(), _place(input_name)
    if about.get(_HASH_KEY) != manifest_hash.encode() or not there or there == now:
        return None
    before = json.loads(about[_CONTENTS_KEY])
    both = [(before[str(i)], *found) for i, found in sorted(_contents(source).items()) if str(i) in before]
    others = [identity for kept, identity, digest in both if kept != digest]
    if not others:
        return None
    return there, (
        f"{now}, where names and sizes are the same and the images are not: {len(others)} of {len(both)} that were "
        f"compared differ ({', '.join(others[:_NAMES_SHOWN])}{', ...' if len(others) > _NAMES_SHOWN else ''})"
    )


def _metadata(output: Storage) -> dict[bytes, bytes]:
    """Returns what `write_manifest` wrote beside the names; nothing where it cannot be read."""
    pa = require_pyarrow()
    try:
        with output.open(MANIFEST_FILE) as opened, pa.parquet.ParquetFile(opened) as file:
            return file.schema_arrow.metadata or {}
    except (OSError, pa.ArrowException):
        return {}


def _place(input_name: str) -> str:
    """Returns the path or URL of an input, the same from whichever directory it is named."""
    return printable(input_name if is_url(input_name) else os.path.abspath(input_name))


def _contents(source: Source) -> dict[int, tuple[str, str]]:
    """Returns position -> id and SHA-256 of some images; none where the manifest covers all of them."""
    found: dict[int, tuple[str, str]] = {}
    if not isinstance(source, SpotSource):
        return found
    spots = source.spots(CHECKED_IMAGES)
    # The same ones each time, from all over the input wherever the bytes end it.
    order = [spots[i] for i in np.random.default_rng(0).permutation(len(spots))]
    size_bytes = 0
    with contextlib.closing(map_ahead(lambda rows: _digests(source, rows), order, _CHECK_THREADS)) as parts:
        for part in parts:
            for position, sample_id, digest, content_bytes in part:
                found[position] = sample_id, digest
                size_bytes += content_bytes
            if size_bytes > CHECKED_BYTES:
                break
    return found


def _digests(source: Source, rows: range) -> list[tuple[int, str, str, int]]:
    """Returns position, id, SHA-256 and bytes of those images at some positions that can be read."""
    samples = zip(rows, source.read(rows.start, rows.stop), strict=False)
    return [
        (position, one.id, hashlib.sha256(one.content).hexdigest(), one.content_bytes)
        for position, one in samples
        if isinstance(one.content, bytes)
    ]


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
