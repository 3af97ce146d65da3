"""Hugging Face: a folder of Parquet files that `datasets.load_dataset` opens, label as ClassLabel, images as Image.

https://huggingface.co/docs/datasets/about_dataset_features: the types stand in the files' metadata.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prelabel.adapters.base import Format
from prelabel.adapters.pictures import image_file, image_name
from prelabel.adapters.rows import Conversion
from prelabel.files import new_directory
from prelabel.table import require_pyarrow

FILE_BYTES = 500_000_000
"""A file is ended when it is so large: the Hub and its viewer work best with files of about this size."""
GROUP_ROWS = 1000
GROUP_ROWS_WITH_IMAGES = 100
"""Rows of a row group: what a reader takes into memory for one row."""


def write(path: Path, conversion: Conversion) -> None:
    """Writes the folder; error rows have null for label and image, and say why in `error`."""
    with new_directory(path) as folder:
        _fill(folder / "data", conversion)


def _fill(folder: Path, conversion: Conversion) -> None:
    pa = require_pyarrow()
    folder.mkdir()
    schema = _schema(conversion)
    groups = _groups(conversion, GROUP_ROWS if conversion.source is None else GROUP_ROWS_WITH_IMAGES)
    group, number = next(groups, None), 0
    while group is not None:
        path = folder / f"train-{number:05d}.parquet"
        with pa.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
            full = False
            while group is not None and not full:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group, full = next(groups, None), path.stat().st_size >= FILE_BYTES
        number += 1


def _groups(conversion: Conversion, size: int) -> Iterator[list[dict[str, Any]]]:
    rows = _rows(conversion)
    while group := list(itertools.islice(rows, size)):
        yield group


def _rows(conversion: Conversion) -> Iterator[dict[str, Any]]:
    nothing = [None] * len(conversion.classes)
    for row, sample in conversion.items(errors=True):
        line: dict[str, Any] = {
            "id": row.id,
            "path": row.path,
            "label": None if row.label is None else conversion.class_index[row.label],
            "confidence": row.confidence,
            "probabilities": row.probabilities or nothing,
            "realness": row.realness,
            "model_id": row.model_id,
            "error": row.error,
            **row.extra,
        }
        # `datasets` decodes an image when its row is looked at: a broken one would end its reader's loop.
        if sample is not None and sample.content is not None and row.error is None:
            line["image"] = {"bytes": image_file(sample)[0], "path": image_name(row.id)}
        yield line


def _schema(conversion: Conversion) -> Any:
    pa = require_pyarrow()
    classes = conversion.classes
    types = {
        "id": pa.string(),
        "path": pa.string(),
        "label": pa.int64(),
        "confidence": pa.float32(),
        "probabilities": pa.list_(pa.field("element", pa.float32()), len(classes)),
        "realness": pa.float32(),
        "model_id": pa.string(),
        "error": pa.string(),
        **conversion.predictions.extra_types,
    }
    features: dict[str, Any] = {name: {"dtype": _dtype(kind), "_type": "Value"} for name, kind in types.items()}
    features["label"] = {"names": list(classes), "_type": "ClassLabel"}
    number = {"dtype": "float32", "_type": "Value"}
    features["probabilities"] = {"feature": number, "length": len(classes), "_type": "List"}
    if conversion.source is not None:
        types["image"] = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        features["image"] = {"_type": "Image"}
    return pa.schema(list(types.items()), {b"huggingface": json.dumps({"info": {"features": features}})})


def _dtype(kind: Any) -> str:
    return {"float": "float32", "double": "float64"}.get(str(kind), str(kind))


FORMAT = Format("huggingface", output="folder", images="optional", takes_prefix=False, write=write)
