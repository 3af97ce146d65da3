"""What columns a Parquet file of images may have, and the errors for those that it may not."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from prelabel.errors import InputError
from prelabel.reading import reason

IMAGE_COLUMN = "image"
LABEL_COLUMN = "label"
ID_COLUMN = "id"
UNLABELLED = -1
"""Hugging Face writes -1 where a split has no labels."""


def check_columns(path: str, schema: Any) -> None:
    """Raises `InputError` unless the Arrow schema has images, and labels and ids of usable types if at all."""
    import pyarrow as pa

    if IMAGE_COLUMN not in schema.names:
        raise InputError(
            f"{path} has no column {IMAGE_COLUMN!r}: it has {', '.join(schema.names) or 'none'}; rename the one that "
            "holds the image files"
        )
    if twice := [name for name in (IMAGE_COLUMN, LABEL_COLUMN, ID_COLUMN) if schema.names.count(name) > 1]:
        raise InputError(f"{path} has several columns {twice[0]!r}: one is wanted")
    image = schema.field(IMAGE_COLUMN).type
    if pa.types.is_struct(image) and image.get_field_index("bytes") >= 0:
        image = image.field("bytes").type
    if not (pa.types.is_binary(image) or pa.types.is_large_binary(image)):
        raise InputError(f"{path}: column {IMAGE_COLUMN!r} is {image}, wanted are binary image files")
    for name in (LABEL_COLUMN, ID_COLUMN):
        if name in schema.names and not _is_name(schema.field(name).type):
            raise InputError(f"{path}: column {name!r} is {schema.field(name).type}, wanted are strings or integers")


def check_text(path: str, name: str, column: Any) -> None:
    """Raises `InputError` unless all strings of a column (Arrow) are UTF-8, which Arrow does not see to by itself."""
    import pyarrow as pa

    try:
        for chunk in column.chunks:
            (chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk).validate(full=True)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: column {name!r} is not text in UTF-8 ({reason(error)}): write it anew") from None


def class_names(path: str, schema: Any) -> tuple[str, ...] | None:
    """Returns the Hugging Face class names of the label column in label order, None where there are none."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return None
    try:
        label = json.loads(metadata)["info"]["features"].get(LABEL_COLUMN) or {}
        names = label.get("names")
        if names is None:
            return None
        if not all(isinstance(name, str) for name in names):
            raise TypeError("names are not strings")
        return tuple(names)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: its huggingface metadata is damaged ({type(error).__name__}: {error}): write the file again"
        ) from None


def check_labels(path: str, labels: Any, names: Sequence[str] | None) -> None:
    """Raises `InputError` unless all integer labels (an Arrow column) are -1, null or have a class name."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = labels.type.value_type if pa.types.is_dictionary(labels.type) else labels.type
    if not pa.types.is_integer(kind):
        return
    if pa.types.is_dictionary(labels.type):
        labels = labels.cast(kind)
    limits = pc.min_max(labels).as_py()
    lowest, highest = limits["min"], limits["max"]
    if lowest is None:  # no rows, or nulls only
        return
    if lowest < UNLABELLED:
        raise InputError(f"{path}: label {lowest} is not usable: wanted are {UNLABELLED} (unlabelled), 0, 1, ...")
    if names is not None and highest >= len(names):
        raise InputError(
            f"{path}: label {highest} has no class name: the file's metadata names {len(names)} classes "
            f"(0..{len(names) - 1}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        )


def row_id(stem: str, row: int) -> str:
    """Returns the id of a row that has none of its own, in the file of that stem."""
    return f"{stem}/{row:06d}"


def filled_ids(ids: Any, stem: str) -> Any:
    """Returns the column of ids (Arrow) of a file as strings, with `row_id` where there is none."""
    import pyarrow as pa

    ids = ids.cast(pa.string())
    if not ids.null_count:
        return ids
    filled = [row_id(stem, row) if one is None else one for row, one in enumerate(ids.to_pylist())]
    return pa.chunked_array([filled], pa.string())


def check_ids(columns: Sequence[Any]) -> None:
    """Raises `InputError` if an id occurs twice in the columns of `filled_ids`, which may be of different files."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not columns:
        return
    ids = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))[0].as_py()
    raise InputError(
        f"id {twice['values']!r} occurs {twice['counts']} times in column {ID_COLUMN!r}: make the ids unique, or leave "
        "the column out and rows are numbered"
    )


def check_numbered(columns: Sequence[Any], files: Mapping[str, int]) -> None:
    """Raises `InputError` if an id in the columns of `filled_ids` is the `row_id` of a row in another file.

    Args:
        columns: The ids of files that have some.
        files: Stem -> rows of each file that has none.
    """
    import pyarrow.compute as pc

    for column in columns if files else ():
        for one in column.filter(pc.match_substring_regex(column, r"/[0-9]{6,18}$")).to_pylist():
            stem, _, row = one.rpartition("/")
            if int(row) < files.get(stem, 0) and one == row_id(stem, int(row)):
                raise InputError(
                    f"id {one!r} is also that of row {int(row)} in the file {stem!r}, which has no column "
                    f"{ID_COLUMN!r}: give it one, or rename it"
                )


def _is_name(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):  # a pandas categorical
        kind = kind.value_type
    if pa.types.is_null(kind):  # what pandas makes of a column in which every value is missing
        return True
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind))
