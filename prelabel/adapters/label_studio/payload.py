"""Rows of predictions as Label Studio takes them: tasks, and predictions for tasks.

https://labelstud.io/guide/predictions. All that is known of an image stands in its task's data, where the Data Manager
can filter and sort by it.
"""

from collections.abc import Sequence
from typing import Any

from prelabel.adapters.label_studio.interface import Interface
from prelabel.adapters.rows import Row

UID_KEY = "uid"
"""Where an image's id stands in a task's data."""
LANE_COLUMNS = ("lane", "lane_reason", "review_rank", "calibrated_confidence")
"""What `prelabel audit apply` adds to rows."""


def to_task(row: Row, image: str, interface: Interface, classes: Sequence[str]) -> dict[str, Any]:
    """Returns a task with its prediction; without one where the row is an error, whose reason is in `error`.

    Args:
        row: The row.
        image: Address of the image.
        interface: What the project asks.
        classes: K class names in label order.
    """
    # The image comes last: its name in the task is the project's choice, and may be one of ours.
    at = {interface.image_key: image}
    data: dict[str, Any] = {UID_KEY: row.id, "model_id": row.model_id}
    data |= {name: row.extra[name] for name in LANE_COLUMNS if row.extra.get(name) is not None}
    if row.label is None:
        return {"data": {**data, "error": row.error, **at}}
    data |= {"label": row.label, "confidence": row.confidence, "realness": row.realness}
    data |= {f"p_{name}": p for name, p in zip(classes, row.probabilities, strict=True)}
    return {"data": {**data, **at}, "predictions": [to_prediction(row.label, row.confidence, row.model_id, interface)]}


def to_prediction(label: str, confidence: float | None, model_id: str, interface: Interface) -> dict[str, Any]:
    """Returns a prediction of one class."""
    result = {
        "from_name": interface.from_name,
        "to_name": interface.to_name,
        "type": "choices",
        "value": {"choices": [label]},
    }
    return {"model_version": model_id, "score": confidence, "result": [result]}
