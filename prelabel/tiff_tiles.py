"""What decoding a tiled TIFF file costs, which its size and that of its picture do not tell.

A tile is unpacked whole, however little of it is in the picture, and many tiles may have the same bytes.
"""

import struct

from PIL.TiffImagePlugin import TiffImageFile

from prelabel.errors import ImageError

_TILE_WIDTH, _TILE_LENGTH = 322, 323
"""Tags of TIFF 6.0, section 15."""


def tiled_pixels(image: TiffImageFile, data: bytes) -> int:
    """Returns how many pixels the tiles of a TIFF file have together; 0 where the picture is in strips.

    Args:
        image: `data` as Pillow opened it, not yet loaded.
        data: The file.

    Raises:
        ImageError: The tiles have no size, or more than one; or it is a big-endian BigTIFF.
    """
    # What libtiff, which decodes, would read in another way than Pillow did is refused.
    if data.startswith(b"MM\0+"):
        raise ImageError("big-endian BigTIFF files are not read: save it as a plain TIFF or PNG")
    tags = _tags(data, image.tag_v2.offset)
    if max(map(tags.count, (_TILE_WIDTH, _TILE_LENGTH))) > 1:
        raise ImageError("the TIFF file states the size of its tiles twice: save it anew")
    if _TILE_WIDTH not in tags and _TILE_LENGTH not in tags:
        return 0
    width, length = (image.tag_v2.get(tag) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    if not (isinstance(width, int) and isinstance(length, int) and min(width, length) > 0):
        raise ImageError(f"the TIFF file has tiles of {width} x {length} pixels: save it anew")
    return -(-image.width // width) * width * -(-image.height // length) * length


def _tags(data: bytes, offset: int) -> list[int]:
    """Returns the numbers of the tags in the directory at this place of a TIFF or BigTIFF file."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2] == 43
    count_format, entry_bytes = ("Q", 20) if is_big else ("H", 12)
    (count,) = struct.unpack_from(order + count_format, data, offset)
    first = offset + struct.calcsize(count_format)
    entries = range(first, min(first + count * entry_bytes, len(data) - 1), entry_bytes)
    return [struct.unpack_from(order + "H", data, entry)[0] for entry in entries]
