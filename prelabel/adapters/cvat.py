"""CVAT for images 1.1: one XML file, a tag for each image with confidence, realness and lane as its attributes.

https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/. CVAT finds its frames by `name` and keeps the
attributes that the label has in the task.
"""

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from prelabel.adapters.base import Format
from prelabel.adapters.pictures import encoded_size_px, image_name
from prelabel.adapters.rows import Conversion, Row
from prelabel.adapters.text import write_lines
from prelabel.errors import InputError

NO_FRAME = 1_000_000_000
"""Added to the ids of images. CVAT takes an id for a frame's number where it knows no frame of the name, and would tag
another image; with a number that no frame has it says so instead."""

# What XML 1.0 has no way to write (https://www.w3.org/TR/xml/#charsets).
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(path: Path, conversion: Conversion) -> None:
    """Writes one `<image>` for each prediction, with its size if the images are given; error rows are left out.

    Raises:
        InputError: Two images have names that CVAT cannot tell apart, or a text holds what XML cannot.
    """
    write_lines(path, _pieces(conversion))


def _pieces(conversion: Conversion) -> Iterator[str]:
    attributes = ("confidence", "realness", *conversion.predictions.extra_types)
    yield '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task><labels>\n'
    # As text: a number would have to say in which steps it goes, and CVAT would refuse what lies between.
    declared = "".join(
        f"<attribute><name>{_text(name)}</name><mutable>False</mutable><input_type>text</input_type>"
        "<default_value></default_value><values></values></attribute>"
        for name in attributes
    )
    for name in conversion.classes:
        yield f"<label><name>{_text(name)}</name><type>tag</type><attributes>{declared}</attributes></label>\n"
    yield "</labels></task></meta>\n"
    frames: set[int] = set()  # hashes: of a million names they take a quarter of the memory
    for row, sample in conversion.items(errors=False):
        name = image_name(row.id)
        if hash(_frame(row)) in frames and (other := _earlier(conversion, row)) is not None:
            # CVAT would give one frame the tags of both, and the other none.
            raise InputError(
                f"{other!r} and {row.id!r} are one frame for CVAT, which compares names without suffixes: rename one"
            )
        frames.add(hash(_frame(row)))
        size = encoded_size_px(sample.content) if sample else None
        shape = f' width="{size[0]}" height="{size[1]}"' if size else ""
        image = f'<image id="{NO_FRAME + row.position}" name={_quoted(name)}{shape}>'
        values = {"confidence": row.confidence, "realness": row.realness, **row.extra}
        inner = "".join(
            f"<attribute name={_quoted(name)}>{_text(str(value))}</attribute>"
            for name, value in values.items()
            if value is not None
        )
        assert row.label is not None
        yield f'{image}<tag label={_quoted(row.label)} source="auto">{inner}</tag></image>\n'
    yield "</annotations>\n"


def _frame(row: Row) -> str:
    """Returns what CVAT compares."""
    return os.path.splitext(image_name(row.id))[0]


def _earlier(conversion: Conversion, row: Row) -> str | None:
    """Returns the id of a row before this one that is in the file and has the same frame."""
    before = itertools.islice(conversion.predictions.rows(probabilities=False), row.position)
    written = (one for one in before if one.error is None and conversion.selection.wants(one))
    return next((one.id for one in written if _frame(one) == _frame(row)), None)


def _text(value: str) -> str:
    return escape(_writable(value), {"\r": "&#13;"})


def _quoted(value: str) -> str:
    return quoteattr(_writable(value))


def _writable(value: str) -> str:
    if bad := _NOT_XML.search(value):
        raise InputError(
            f"{value!r} holds the character {bad[0]!r}, which XML cannot: rename it, or use another format"
        )
    return value


FORMAT = Format("cvat", output="file", images="optional", takes_prefix=False, write=write)
