"""Which images of a huge data set are kept: of the pile a spread, and where labels are drawn, not all labelled ones."""

import math
from collections import Counter

from training.spread import evenly_spread


class Selection:
    """Decides image by image, in order, which are kept.

    Args:
        images: How many there are.
        max_unlabelled: Most images of the pile.
        label_count: Labels that will be drawn; None for all that there are, of which every one is kept.
    """

    def __init__(self, images: int, max_unlabelled: int, label_count: int | None) -> None:
        self._label_count = label_count
        self._spread = set(evenly_spread(images, max_unlabelled).tolist())
        self._most_beside = images if label_count is None else max_unlabelled
        drawn = 0 if label_count is None else round(label_count * (2 + math.log(max(1, label_count))))
        self.most = min(images, len(self._spread) + self._most_beside + drawn)
        """Images that are kept, at the most."""
        self._labels: Counter[str] = Counter()
        self._beside = self._owed = 0

    def is_of_pile(self, position: int) -> bool:
        """Whether an image is one of the spread, which is the pile where labels are hidden."""
        return position in self._spread

    def keeps(self, position: int, label: str | None) -> bool:
        """Whether the next image, with its label or None, is kept."""
        if position in self._spread:
            # A place that fell on an image which is kept anyway goes to the next one of the pile.
            self._owed += label is not None and self._label_count is None
        elif label is not None:
            # The draw may want as many of each class; with every class that comes up, fewer.
            wanted = 0 if self._label_count is None else -(-self._label_count // max(1, len(self._labels)))
            if self._beside >= self._most_beside and self._labels[label] >= wanted:
                return False
            self._beside += 1
        elif self._owed:
            self._owed -= 1
        else:
            return False
        if label is not None:
            self._labels[label] += 1
        return True
