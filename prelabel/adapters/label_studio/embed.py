"""Small images inside tasks, as `data:` addresses: for images that lie in no files of their own."""

import base64

from prelabel.adapters.pictures import image_file
from prelabel.errors import InputError
from prelabel.sources import Sample

MAX_EMBEDDED_BYTES = 64 << 10
"""Larger images make tasks that Label Studio lists slowly: 1,000 of them are 64 MB."""
NO_IMAGE = "data:,"
"""The address of an image that could not be read: an empty one."""
_KINDS = {".jpg": "jpeg", ".tif": "tiff"}
"""Suffix -> media type, where they differ."""


def to_data_address(sample: Sample) -> str:
    """Returns an image as an address that holds it; pixels become a PNG.

    Raises:
        InputError: It is larger than `MAX_EMBEDDED_BYTES`.
    """
    if sample.content is None:
        return NO_IMAGE
    data, suffix = image_file(sample)
    if len(data) > MAX_EMBEDDED_BYTES:
        raise InputError(
            f"image {sample.id!r} has {len(data):,} bytes, and --images puts at most {MAX_EMBEDDED_BYTES:,} into a "
            "task: let Label Studio serve the images and give --image-url-prefix"
        )
    kind = _KINDS.get(suffix, suffix.removeprefix("."))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
