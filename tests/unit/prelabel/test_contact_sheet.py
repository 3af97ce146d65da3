from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prelabel.contact_sheet import BLOCKS, HEADER_PX, LABEL_WIDTH_PX, PER_BLOCK, choose, write_contact_sheet
from prelabel.sources import open_source


@given(st.lists(st.tuples(st.integers(-1, 2), st.floats(0, 1, width=32), st.floats(0, 1, width=32)), max_size=40))
def test_blocks_hold_the_extremes_of_the_class(rows: list[tuple[int, float, float]]) -> None:
    label_index = np.array([row[0] for row in rows], np.int32)
    confidence, realness = (np.array([row[i] for row in rows], np.float32) for i in (1, 2))
    for k in range(3):
        members = set(np.flatnonzero(label_index == k).tolist())
        chosen = choose(label_index, confidence, realness, k)
        assert tuple(chosen) == BLOCKS
        for positions in chosen.values():
            assert len(set(positions)) == len(positions) == min(PER_BLOCK, len(members))
            assert set(positions) <= members
        left_out = members - set(chosen["most certain"])
        if left_out:
            assert min(confidence[chosen["most certain"]]) >= max(confidence[list(left_out)])
        left_out = members - set(chosen["least real"])
        if left_out:
            assert max(realness[chosen["least real"]]) <= min(realness[list(left_out)])


def test_the_sheet_shows_the_images_in_their_places(tmp_path: Path) -> None:
    for i in range(4):
        Image.new("L", (9, 9), 60 * i).save(tmp_path / f"{i}.png")
    (tmp_path / "4.png").write_bytes(b"changed since")
    source = open_source(tmp_path)
    labels = np.array([0, 0, 1, -1, 1], np.int32)
    confidence = np.array([0.6, 0.9, 0.8, np.nan, 0.5], np.float32)
    write_contact_sheet(tmp_path / "sheet.png", source, ("a", "b"), labels, confidence, confidence)
    with Image.open(tmp_path / "sheet.png") as sheet:
        top_left = sheet.getpixel((LABEL_WIDTH_PX + 10, HEADER_PX + 10))
        below = sheet.getpixel((LABEL_WIDTH_PX + 10, HEADER_PX + 62))
    assert top_left == (60, 60, 60)
    assert below == (120, 120, 120)
