"""The annotations of one task -> one answer.

Counted is, of each annotator, the latest annotation that was not skipped; where some are marked as ground truth, only
those. The most frequent choice is the answer. With a tie, no choice, or several choices at a time there is none.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from prelabel.adapters.label_studio.interface import Interface

Outcome = Literal["answered", "skipped", "no choice", "several choices", "a tie"]


def decide(annotations: Sequence[Mapping[str, Any]], interface: Interface) -> tuple[str | None, Outcome]:
    """Returns the answer to a task and how it came about.

    Args:
        annotations: As Label Studio lists them.
        interface: What was asked.
    """
    counted = [one for one in annotations if not one.get("was_cancelled")]
    if not counted:
        return None, "skipped"
    counted = [one for one in counted if one.get("ground_truth")] or counted
    latest: dict[object, Mapping[str, Any]] = {}
    for one in sorted(counted, key=lambda one: (str(one.get("updated_at")), one["id"])):
        latest[one.get("completed_by")] = one
    chosen = [_choices(one, interface) for one in latest.values()]
    votes = Counter(choices[0] for choices in chosen if len(choices) == 1).most_common(2)
    if not votes:
        return None, "several choices" if any(chosen) else "no choice"
    if len(votes) == 2 and votes[0][1] == votes[1][1]:
        return None, "a tie"
    return votes[0][0], "answered"


def _choices(annotation: Mapping[str, Any], interface: Interface) -> list[str]:
    return [
        choice
        for result in annotation.get("result") or []
        if result.get("from_name") == interface.from_name and result.get("type") == "choices"
        for choice in result.get("value", {}).get("choices", [])
    ]
