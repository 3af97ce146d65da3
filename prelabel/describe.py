"""`prelabel info`: what a bundle, a directory of predictions or a server is, as fields and as text."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.bundle import BUNDLE_FILE, load_bundle
from prelabel.errors import InputError
from prelabel.output import count, read_run
from prelabel.shards import Counts
from prelabel.storage import open_storage
from prelabel.table import FILE_PATTERN, holds_predictions, prediction_tables, table_info

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

Fields = dict[str, Any]


def describe(what: str, model_of_server: Callable[[str], Any]) -> Fields:
    """Says what lies at a path, or what the server at an address serves.

    Args:
        what: Path of a bundle or of predictions, or HOST:PORT. What exists as a path is a path.
        model_of_server: Asks the server at an address for its model.

    Raises:
        InputError: It is none of these.
        ServerUnavailableError: It is an address, and no server answers there.
    """
    path = Path(what)
    if (path / BUNDLE_FILE).exists():
        return _describe_bundle(path)
    if holds_predictions(what):
        return _describe_predictions(what)
    if path.exists():
        raise InputError(f"{what} is neither a model bundle ({BUNDLE_FILE}) nor predictions ({FILE_PATTERN})")
    host, colon, port = what.rpartition(":")
    if not (colon and host and port.isdecimal() and "/" not in host):
        raise InputError(f"{what} does not exist and is no server address HOST:PORT")
    return _describe_server(what, model_of_server(what))


def to_text(fields: Fields) -> str:
    """Returns the fields as lines for people; nested fields become one line each."""
    lines = []
    for name, value in _flat(fields):
        shown = f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
        lines.append(f"{name:<28} {'-' if value is None else shown}")
    return "\n".join(lines)


def _flat(fields: Fields, prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in fields.items():
        if isinstance(value, dict):
            flat += _flat(value, f"{prefix}{name}.")
        else:
            flat.append((prefix + name, ", ".join(map(str, value)) if isinstance(value, list) else value))
    return flat


def _describe_bundle(path: Path) -> Fields:
    bundle = load_bundle(path)
    return {
        "kind": "model bundle",
        "path": str(path),
        "model_id": bundle.model_id,
        "name": bundle.name,
        "classes": list(bundle.classes),
        "input": dataclasses.asdict(bundle.input),
        "opset": bundle.opset,
        "parity": dataclasses.asdict(bundle.parity),
        "calibration": bundle.calibration,
        "precisions": [
            f"{tried.precision} by {tried.runtime}: {'allowed' if tried.passed else 'refused'}, {tried.reason}"
            for tried in bundle.precisions
        ],
        "training": bundle.training,
        "files": bundle.files,
    }


def _describe_predictions(where: str) -> Fields:
    counts, shards, made_by = Counts(), 0, None
    # Eight bytes a row are kept, not the rows.
    values: dict[str, list[NDArray[np.float32]]] = {"confidence": [], "realness": []}
    for table in prediction_tables(where, ["label", *values, "error"]):
        made_by = table_info(table)
        counts += count(table)
        shards += 1
        for name, kept in values.items():
            kept.append(table[name].drop_null().to_numpy())
    assert made_by is not None
    run = read_run(open_storage(where))
    return {
        "kind": "predictions",
        "path": where,
        "model_id": made_by.model_id,
        "manifest_hash": made_by.manifest_hash,
        "input": None if run is None else run.input,
        "input_images": None if run is None else run.images,
        "execution_provider": None if run is None else run.execution_provider or None,
        "rows": counts.rows,
        "errors": counts.failed,
        "causes": dict(counts.errors.most_common()),
        "shards": shards,
        "classes": list(made_by.classes),
        "labels": {name: counts.labels[name] for name in made_by.classes},
        **{name: _quantiles(np.concatenate(kept)) for name, kept in values.items()},
    }


def _quantiles(values: NDArray[np.float32]) -> dict[str, float | None]:
    found = np.quantile(values, QUANTILES) if len(values) else [math.nan] * len(QUANTILES)
    return {
        f"{share:.0%}": round(float(value), 6) if math.isfinite(value) else None
        for share, value in zip(QUANTILES, found, strict=True)
    }


def _describe_server(address: str, model: Any) -> Fields:
    return {
        "kind": "server",
        "address": address,
        "model_id": model.model_id,
        "name": model.name,
        "classes": list(model.classes),
        "input": dataclasses.asdict(model.input),
        "execution_provider": model.execution_provider,
        "max_request_images": model.max_request_images,
    }
