"""How many passes a JPEG file makes over its picture: what decoding it costs, which its size does not tell."""

import re

_SCAN_DATA_END = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
"""The marker behind a scan's data; in it a byte of 255 is followed by 0, or by a restart marker (ITU T.81, B.1.1.5)."""

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length behind them."""


def has_more_scans(data: bytes, most: int) -> bool:
    """Says whether the first picture of a JPEG file has more than `most` scans; what lies behind it does not count.

    A progressive file refines every pixel with each scan, and an empty scan takes a hundred bytes: time without
    bytes. Usual files have one scan, progressive ones some ten.

    Args:
        data: A JPEG file; of damaged ones what can be told.
        most: Scans that are not too many.
    """
    if data.count(b"\xff\xda") <= most:  # a hundredth of the time of a walk, which few files need
        return False
    count, position = 0, 2
    while count <= most and (found := _SCAN_DATA_END.search(data, position)) is not None:
        marker, position = data[found.end() - 1], found.end()
        if marker == _END_OF_IMAGE:
            break
        count += marker == _START_OF_SCAN
        if marker not in _ALONE:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
    return count > most
