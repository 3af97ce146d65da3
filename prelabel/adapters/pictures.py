"""Image files in an output: their bytes, and names that every file system can hold."""

import io
import os
import re
from typing import TYPE_CHECKING, Any

from PIL import Image

from prelabel.errors import InputError
from prelabel.images import IMAGE_SUFFIXES
from prelabel.sources import Sample

if TYPE_CHECKING:  # audits copy images, and rows have the lanes of audits
    from prelabel.adapters.rows import Row

_BEGINNINGS = (
    (b"\x89PNG", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)
_MAX_NAME_BYTES = 255
"""Of one part of a path, on the usual file systems."""
_TAIL_CHARACTERS = 80
"""Of an id that are shown in a file name; its number makes it unique."""


def image_file(sample: Sample) -> tuple[bytes, str]:
    """Returns an image as the bytes of a file and the suffix of their format (`.png`).

    Files stay as they are, whatever their name says; pixels become PNG.

    Args:
        sample: An image with content.
    """
    content = sample.content
    assert content is not None, "the caller has sorted out the unreadable ones"
    if not isinstance(content, bytes):
        file = io.BytesIO()
        Image.fromarray(content[:, :, 0] if content.ndim == 3 and content.shape[2] == 1 else content).save(file, "PNG")
        return file.getvalue(), ".png"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return content, ".webp"
    found = [suffix for beginning, suffix in _BEGINNINGS if content.startswith(beginning)]
    return content, found[0] if found else _named_suffix(sample.id) or ".png"


def image_name(identity: str) -> str:
    """Returns an id as the name of an image file: tools cut off what looks like a suffix before they compare names."""
    return identity if _named_suffix(identity) else f"{identity}.png"


def numbered_name(row: "Row", suffix: str) -> str:
    """Returns a unique, plain file name for a row's image: `000017-holiday_3.png` for `2024/holiday 3.png`."""
    stem = row.id.rsplit("/", 1)[-1].removesuffix(_named_suffix(row.id))
    tail = re.sub(r"[^A-Za-z0-9._-]", "_", stem)[:_TAIL_CHARACTERS].strip("._")
    return f"{row.position:06d}{'-' if tail else ''}{tail}{suffix}"


def folder_name(class_name: str) -> str:
    """Returns a class name as the name of one folder; `/`, backslash, `%`, control characters and a first dot as %XX.

    Raises:
        InputError: It is too long for a file system.
    """
    name = re.sub(r"[/\\%\x00-\x1f\x7f]|^\.", lambda match: f"%{ord(match[0]):02X}", class_name) or "%"
    if len(os.fsencode(name)) > _MAX_NAME_BYTES:
        raise InputError(f"class {class_name[:40]!r}... is too long for the name of a folder: shorten it")
    return name


def encoded_size_px(content: Any) -> tuple[int, int] | None:
    """Returns (width, height) in pixels of a sample's content by its header, None where there is no readable one."""
    if content is None:
        return None
    if not isinstance(content, bytes):
        return content.shape[1], content.shape[0]
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.size
    except Exception:  # whatever Pillow's decoders raise over a broken file
        return None


def _named_suffix(identity: str) -> str:
    suffix = os.path.splitext(identity)[1]
    return suffix if suffix.lower() in IMAGE_SUFFIXES else ""
