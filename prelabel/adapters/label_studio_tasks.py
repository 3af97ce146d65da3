"""Label Studio: a JSON file of tasks with predictions, to be imported by hand.

https://labelstud.io/guide/predictions. Everything that is known of an image stands in the task's data, where Label
Studio can filter and sort by it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prelabel.adapters.base import Format
from prelabel.adapters.rows import Conversion
from prelabel.adapters.text import address, details, to_json, write_lines

FROM_NAME = "label"
TO_NAME = "image"
"""The names of <Choices> and <Image> in the project's labelling interface."""


def write(path: Path, conversion: Conversion) -> None:
    """Writes one task for each row; error rows are tasks without a prediction."""
    write_lines(path, _pieces(conversion))


def _pieces(conversion: Conversion) -> Iterator[str]:
    opening = "[\n"
    for row, _ in conversion.items(errors=True):
        data: dict[str, Any] = details(row, conversion.classes)
        # As `prelabel push` calls it: a push, a pull and the backend know such tasks.
        data["uid"] = data.pop("id")
        for name, probability in data.pop("probabilities", {}).items():
            data[f"p_{name}"] = probability
        data["image"] = address(row, conversion.image_url_prefix)
        task: dict[str, Any] = {"data": data}
        if row.label is not None:
            choice = {"choices": [row.label]}
            result = {"from_name": FROM_NAME, "to_name": TO_NAME, "type": "choices", "value": choice}
            task["predictions"] = [{"model_version": row.model_id, "score": row.confidence, "result": [result]}]
        yield f"{opening}{to_json(task)}"
        opening = ",\n"
    yield "\n]\n"


FORMAT = Format("label-studio", output="file", images="unused", takes_prefix=True, write=write)
