import io

import numpy as np
from PIL import Image

from prelabel.images import ImageSpec
from serving.decoder import Decoder


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), value).save(file, "PNG")
    return file.getvalue()


async def test_good_images_keep_their_order_and_bad_ones_their_position() -> None:
    decoder = Decoder(ImageSpec(4, 4, 1), threads=3)
    bad = {0: b"", 17: png(17)[:40], 49: b"no image"}
    images, errors = await decoder.decode([bad.get(i, png(i)) for i in range(50)])
    decoder.close()
    assert images[:, 0, 0, 0].tolist() == [i for i in range(50) if i not in bad]
    assert images.shape[1:] == (4, 4, 1)
    assert list(errors) == sorted(bad)
    assert "empty" in errors[0]


async def test_nothing_but_bad_images_is_an_empty_tensor() -> None:
    decoder = Decoder(ImageSpec(4, 4, 3), threads=1)
    images, errors = await decoder.decode([b"x", b"y"])
    decoder.close()
    assert (images.shape, images.dtype, list(errors)) == ((0, 4, 4, 3), np.uint8, [0, 1])
