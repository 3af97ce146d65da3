"""Text files that are written as a stream, whole or not at all."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from prelabel.adapters.rows import Row
from prelabel.addresses import image_address
from prelabel.files import write_atomically


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes pieces of UTF-8 text as they come; what ends a line is part of them."""

    def fill(file: IO[bytes]) -> None:
        for line in lines:
            file.write(line.encode())

    write_atomically(path, fill)


def to_json(value: object) -> str:
    """Returns a value as JSON on one line; NaN, which is not JSON, is a ValueError."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)


def details(row: Row, classes: Iterable[str]) -> dict[str, Any]:
    """Returns everything that is known of an image as plain JSON values; None is left out."""
    known: Mapping[str, Any] = {
        "id": row.id,
        "path": row.path,
        "label": row.label,
        "confidence": row.confidence,
        "probabilities": dict(zip(classes, row.probabilities, strict=True)) if row.error is None else None,
        "realness": row.realness,
        "model_id": row.model_id,
        "error": row.error,
        **row.extra,
    }
    return {name: value for name, value in known.items() if value is not None}


def address(row: Row, prefix: str | None) -> str:
    """Returns where a tool finds a row's image: its path, or the prefix with the id behind it."""
    return row.path if prefix is None else image_address(prefix, row.id)
