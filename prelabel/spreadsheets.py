"""CSV files that people open in spreadsheets: what these would run as formulas, and what they do to a file.

A spreadsheet runs a cell that begins with `=`, `+`, `-`, `@`, a tab or a line break (OWASP, CSV injection). It saves
with semicolons or tabs where commas are decimal marks, in UTF-16 as "Unicode text", with a byte order mark, and a
text such as `000123` comes back as the number 123.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from prelabel.errors import InputError

# The last four are the full-width forms, which some spreadsheets take for the plain ones.
_DANGEROUS = tuple("=+-@\t\r\n'\uff1d\uff0b\uff0d\uff20")
_DELIMITERS = ",;\t"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def as_cell(value: object) -> object:
    """Returns a text that no spreadsheet runs: with an apostrophe in front if it begins as a formula does, or with one.

    A program that takes one leading apostrophe away has the text again. Numbers are not changed.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_DANGEROUS) else value


def from_cell(text: str) -> str:
    """Returns the text that `as_cell` was given; any other is not changed."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_DANGEROUS) else text


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Returns rows as CSV, cells by `as_cell`, a line feed behind each."""
    lines = []
    for row in rows:
        # With "\n" as its own line end, `csv` would not quote a carriage return, and no reader could take the file.
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator="\r\n").writerow(map(as_cell, row))
        lines.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(lines)


def read_header(path: Path) -> list[str]:
    """Returns the column names of a CSV file.

    Raises:
        InputError: It is missing or damaged.
    """
    return _read(path, [])[0]


def read_columns(path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns the wanted values of each line of a CSV file with a header.

    Commas, semicolons or tabs are between the columns, whichever the header has most of; it is UTF-8 or UTF-16 with a
    byte order mark. What a line lacks is empty.

    Raises:
        InputError: It is missing or damaged, or has no column of a wanted name.
    """
    return _read(path, columns)[1]


def with_lost_zeros(ids: Sequence[str], known: Iterable[str]) -> list[str]:
    """Returns ids as they were before a spreadsheet took `000123` for the number 123.

    Args:
        ids: As they were read.
        known: All ids there are. One that is among them is not changed, nor is one that could stand for two of them.
    """
    known = set(known)
    lost = {identity for identity in ids if identity.isdecimal() and identity not in known}
    full: dict[str, list[str]] = {}
    for identity in known if lost else ():
        if identity.isdecimal() and (short := identity.lstrip("0") or "0") in lost:
            full.setdefault(short, []).append(identity)
    return [full[one][0] if len(full.get(one, ())) == 1 else one for one in ids]


def _read(path: Path, columns: Sequence[str]) -> tuple[list[str], list[tuple[str, ...]]]:
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content.startswith(_UTF16_MARKS) else "utf-8-sig")
        first = text.partition("\n")[0]
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=first.count))
        names = list(reader.fieldnames or [])
        if absent := [name for name in columns if name not in names]:
            raise InputError(f"{path} has no column {absent[0]!r} (its header: {', '.join(names) or 'empty'})")
        return names, [tuple(from_cell(row[name] or "") for name in columns) for row in reader]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not in UTF-8: save it from the spreadsheet as 'CSV UTF-8'") from None
    except (OSError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}") from None
