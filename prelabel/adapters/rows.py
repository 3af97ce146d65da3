"""Prediction rows, one after the other in bounded memory, chosen by lane and confidence, with their images."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from prelabel.audit.lanes import LANES
from prelabel.errors import InputError
from prelabel.sources import Sample, Source
from prelabel.table import ordered_files, read_info, require_pyarrow

LANE_COLUMN = "lane"
READ_ROWS = 1024
"""Rows that are unpacked at a time: with 100 classes, a few megabytes."""
_KNOWN = ("id", "path", "label", "confidence", "probabilities", "realness", "model_id", "error")


@dataclass(frozen=True)
class Row:
    """What is known of one image. Numbers are the shortest decimals that stand for the float32 of the file."""

    position: int
    """Of the image in the input, from 0."""
    id: str
    """Unique in the input."""
    path: str
    """Where the image lies."""
    label: str | None
    """Predicted class; None in an error row."""
    confidence: float | None
    """Its probability, 0..1; None in an error row."""
    probabilities: Sequence[float]
    """K probabilities, 0..1; empty in an error row."""
    realness: float | None
    """0..1; None in an error row."""
    model_id: str
    """The model that made the row."""
    error: str | None
    """Why there is no prediction."""
    extra: Mapping[str, Any]
    """Further columns, such as `lane` and `calibrated_confidence` of `prelabel audit apply`."""


class Predictions:
    """An output directory of `prelabel run` or `prelabel audit apply`, read as a stream."""

    def __init__(self, directory: Path) -> None:
        """Reads the files' metadata.

        Raises:
            InputError: There are no predictions, or their files do not belong together or differ in their columns.
        """
        pa = require_pyarrow()
        self.directory = directory
        self._files = ordered_files(directory)
        known = [read_info(path) for path in self._files]
        self.info = known[0][0]
        """What the first file says about itself: classes, model, input."""
        self.rows_in_all = sum(rows for _, rows in known)
        schemas = [pa.parquet.read_schema(path) for path in self._files]
        for path, schema in zip(self._files, schemas, strict=True):
            if not schema.equals(schemas[0]):
                raise InputError(f"{path} has other columns than {self._files[0].name}: make all files in one run")
        self.extra_types: dict[str, Any] = {one.name: one.type for one in schemas[0] if one.name not in _KNOWN}
        """Further column -> its Arrow type."""

    def rows(self, *, probabilities: bool = True) -> Iterator[Row]:
        """Yields every row in the order of the input; without the probabilities if they are not wanted.

        Raises:
            InputError: A file is damaged.
        """
        pa = require_pyarrow()
        columns = [*_KNOWN, *self.extra_types]
        if not probabilities:
            columns.remove("probabilities")
        position = 0
        for path in self._files:
            try:
                with pa.parquet.ParquetFile(path) as file:
                    for batch in file.iter_batches(READ_ROWS, columns=columns):
                        yield from _unpack(batch, columns, position)
                        position += batch.num_rows
            except (OSError, pa.ArrowException) as error:
                raise InputError(f"{path} is damaged: {' '.join(str(error).split())}; make it again") from None


def _unpack(batch: Any, columns: Sequence[str], position: int) -> Iterator[Row]:
    values = {name: _values(batch.column(name)) for name in columns}
    probabilities = values.pop("probabilities", [()] * batch.num_rows)
    extra = [name for name in columns if name not in _KNOWN]
    for i in range(batch.num_rows):
        failed = values["error"][i] is not None
        yield Row(
            position=position + i,
            probabilities=() if failed else probabilities[i],
            extra={name: values[name][i] for name in extra},
            **{name: values[name][i] for name in _KNOWN if name != "probabilities"},
        )


def _values(column: Any) -> list[Any]:
    """Returns a column's values; as Python's float, a float32 of 0.81 would be written as 0.8100000023841858."""
    pa = require_pyarrow()
    kind = column.type
    if pa.types.is_fixed_size_list(kind):
        flat, size = _values(column.flatten()), kind.list_size
        return [flat[i : i + size] for i in range(0, len(flat), size)]
    if not pa.types.is_floating(kind):
        values: list[Any] = column.to_pylist()
        return values
    if kind == pa.float32():
        column = column.cast(pa.string()).cast(pa.float64())
    return [None if value is None or math.isnan(value) else value for value in column.to_pylist()]


@dataclass(frozen=True)
class Selection:
    """Which rows are wanted."""

    lanes: tuple[str, ...] = ()
    """Of these lanes; none: of all."""
    min_confidence: float | None = None
    """At least so confident, 0..1; leaves error rows out."""

    def __post_init__(self) -> None:
        if unknown := [lane for lane in self.lanes if lane not in LANES]:
            raise InputError(f"--lane {unknown[0]!r} is not known: wanted are {', '.join(LANES)}, with commas between")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise InputError(f"--min-confidence {self.min_confidence} is not usable: wanted is a number from 0 to 1")

    def wants(self, row: Row) -> bool:
        """Whether a row is chosen."""
        if self.lanes and row.extra[LANE_COLUMN] not in self.lanes:
            return False
        return self.min_confidence is None or (row.confidence is not None and row.confidence >= self.min_confidence)


@dataclass
class Tally:
    """What became of the rows."""

    left_out: int = 0
    """Not chosen by the selection."""
    written: int = 0
    """In the output, labelled or not."""
    unlabelled: int = 0
    """Error rows among those written."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Why a chosen row could not be written -> rows."""


@dataclass(frozen=True)
class Conversion:
    """Everything that a format writes, as streams; `tally` counts along."""

    predictions: Predictions
    """The rows."""
    selection: Selection = field(default_factory=Selection)
    """Which of them."""
    source: Source | None = None
    """The images, in the same order."""
    image_url_prefix: str | None = None
    """What stands before an id to make the address of its image; None: the address is the row's path."""
    tally: Tally = field(default_factory=Tally)
    """Filled by `items`."""

    def __post_init__(self) -> None:
        info = self.predictions.info
        if self.selection.lanes and LANE_COLUMN not in self.predictions.extra_types:
            raise InputError(
                f"{self.predictions.directory} has no lanes: `prelabel audit apply` makes them, then --lane can choose"
            )
        if self.source is not None and self.source.manifest_hash != info.manifest_hash:
            raise InputError(
                f"the predictions in {self.predictions.directory} are of another input (manifest "
                f"{info.manifest_hash[:12]}, not {self.source.manifest_hash[:12]}): give --images as --input was given"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.predictions.info.classes

    @cached_property
    def class_index(self) -> dict[str, int]:
        """Class name -> its position in the label order."""
        return {name: k for k, name in enumerate(self.classes)}

    def items(
        self, *, errors: bool, readable: bool = False, on_disk: bool = False
    ) -> Iterator[tuple[Row, Sample | None]]:
        """Yields the chosen rows, with the image of each where there is a source.

        Args:
            errors: Whether error rows are wanted; if not they are counted as skipped.
            readable: Whether an image that cannot be read any more makes its row skipped.
            on_disk: Whether, where there is no source, a path that is no file of this machine does, or that another row
                has.

        Raises:
            InputError: Nothing is left to write, or the images changed since they were pre-labelled.
        """
        tally = self.tally
        paths: set[int] = set()  # hashes: of a million paths they take a quarter of the memory
        by_path = on_disk and self.source is None
        for row, sample in self._pairs():
            if not self.selection.wants(row):
                tally.left_out += 1
            elif row.error is not None and not errors:
                tally.skipped["an error instead of a prediction"] += 1
            elif readable and sample is not None and sample.content is None:
                tally.skipped["an image that cannot be read"] += 1
            elif by_path and not Path(row.path).is_file():
                tally.skipped["a path that is no file here (--images copies images)"] += 1
            elif by_path and (path := hash(os.path.abspath(row.path))) in paths:
                tally.skipped["a path that an earlier row has"] += 1
            else:
                if by_path:
                    paths.add(path)
                tally.written += 1
                tally.unlabelled += row.error is not None
                yield row, sample
        if not tally.written:
            reasons = [f"{count:,} have {reason}" for reason, count in tally.skipped.items()]
            reasons += [f"{tally.left_out:,} are left out by --lane or --min-confidence"] if tally.left_out else []
            raise InputError(
                f"nothing to write: of {self.predictions.rows_in_all:,} rows in {self.predictions.directory} "
                f"{', '.join(reasons) or 'there is none'}"
            )

    def _pairs(self) -> Iterator[tuple[Row, Sample | None]]:
        if self.source is None:
            for row in self.predictions.rows():
                yield row, None
            return
        samples = self.source.read(0, self.predictions.rows_in_all)
        for row, sample in zip(self.predictions.rows(), samples, strict=True):
            if row.id != sample.id:
                raise InputError(
                    f"image {row.position} of --images is {sample.id!r}, but the prediction there is of {row.id!r}: "
                    "give --images as --input was given to `prelabel run`"
                )
            yield row, sample
