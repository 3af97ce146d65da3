"""What spreadsheets run, and what they do to files."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.errors import InputError
from prelabel.spreadsheets import as_cell, csv_text, from_cell, read_columns, read_header, with_lost_zeros

texts = st.text(st.sampled_from("=+-@\t\r\n'ab,;\"0"), max_size=6)


@given(texts)
def test_a_cell_is_no_formula_and_gives_its_text_back(text: str) -> None:
    cell = str(as_cell(text))
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert from_cell(cell) == text


def test_numbers_and_plain_texts_stay() -> None:
    assert [as_cell(one) for one in (-1.5, None, "a", "it's")] == [-1.5, None, "a", "it's"]
    assert from_cell("'90s.png") == "'90s.png"


@given(st.lists(st.tuples(texts, texts), max_size=5), st.sampled_from(",;\t"))
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["id", "answer"])
        writer.writerows(map(as_cell, row) for row in rows)
    assert read_header(path) == ["id", "answer"]
    assert read_columns(path, ("id", "answer")) == rows
    assert read_columns(path, ("answer",)) == [(answer,) for _, answer in rows]


@given(st.lists(st.tuples(texts, texts), max_size=5))
def test_csv_of_ours_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    """Carriage returns in ids among them, which would end a line if they had no quotes."""
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(csv_text([("id", "answer"), *rows]).encode())
    assert read_columns(path, ("id", "answer")) == rows


def test_csv_of_ours_has_plain_lines() -> None:
    assert csv_text([("id", "n"), ("=a", 1), ("b,c", None)]) == 'id,n\n\'=a,1\n"b,c",\n'


def test_lost_zeros() -> None:
    assert with_lost_zeros(["7", "0", "12", "x"], ["007", "00", "12", "0012", "x"]) == ["007", "00", "12", "x"]
    assert with_lost_zeros(["7"], ["07", "007"]) == ["7"]
    assert with_lost_zeros(["7"], ["7", "007"]) == ["7"]
    assert with_lost_zeros(["7"], []) == ["7"]


def test_a_folder_is_no_csv(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as CSV"):
        read_columns(tmp_path, ("id",))
