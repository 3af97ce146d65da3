"""Why rows have no prediction, with what differs from image to image taken out of the messages."""

from dataclasses import dataclass, field

from prelabel.shards import OTHER_CAUSES, cause_of

MAX_CAUSES = 1000
"""Further ones are counted together: a message may hold a file name, and every row another."""
EXAMPLES = 3
"""Ids that are kept for a cause."""


@dataclass
class Cause:
    """Error rows with one cause."""

    count: int = 0
    """How many."""
    examples: list[str] = field(default_factory=list)
    """The first few ids."""


@dataclass
class Causes:
    """Error rows by cause."""

    found: dict[str, Cause] = field(default_factory=dict)
    """Message without particulars -> its rows."""

    def add(self, identity: str, message: str) -> None:
        """Counts an error row."""
        key = cause_of(message)
        if key not in self.found and len(self.found) >= MAX_CAUSES:
            key = OTHER_CAUSES
        cause = self.found.setdefault(key, Cause())
        cause.count += 1
        if len(cause.examples) < EXAMPLES:
            cause.examples.append(identity)

    @property
    def rows(self) -> int:
        """Error rows in all."""
        return sum(cause.count for cause in self.found.values())

    def by_count(self) -> list[tuple[str, Cause]]:
        """Returns the causes, the most frequent first."""
        return sorted(self.found.items(), key=lambda entry: (-entry[1].count, entry[0]))
