"""SageMaker Ground Truth: an output manifest of image classification, one JSON object a line.

https://docs.aws.amazon.com/sagemaker/latest/dg/sms-data-output.html. Our own figures stand under `prelabel`: Ground
Truth passes keys on that it does not know.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prelabel.adapters.base import Format
from prelabel.adapters.rows import Conversion
from prelabel.adapters.text import address, details, to_json, write_lines

LABEL_ATTRIBUTE = "label"


def write(path: Path, conversion: Conversion) -> None:
    """Writes one line for each row; error rows have no label, which is how Ground Truth writes unlabelled images."""
    write_lines(path, _lines(conversion))


def _lines(conversion: Conversion) -> Iterator[str]:
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    for row, _ in conversion.items(errors=True):
        line: dict[str, Any] = {"source-ref": address(row, conversion.image_url_prefix)}
        if row.label is not None:
            line[LABEL_ATTRIBUTE] = conversion.class_index[row.label]
            line[f"{LABEL_ATTRIBUTE}-metadata"] = {
                "class-name": row.label,
                "confidence": row.confidence,
                "type": "groundtruth/image-classification",
                "job-name": f"prelabel/{row.model_id}",
                "human-annotated": "no",
                "creation-date": created,
            }
        line["prelabel"] = details(row, conversion.classes)
        yield f"{to_json(line)}\n"


FORMAT = Format("ground-truth", output="file", images="unused", takes_prefix=True, write=write)
