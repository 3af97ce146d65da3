"""Every pixel enters through these functions, and no bytes may get past them but as an image or an ImageError."""

import io
import struct
import threading
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prelabel import images
from prelabel.errors import ImageError, InputError
from prelabel.images import MAX_IMAGE_PIXELS, ImageSpec, Pixels, decode_image, fit_pixels, image_size_and_channels

GREY, COLOUR = ImageSpec(6, 8, 1), ImageSpec(6, 8, 3)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (8, 6)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


VALID = [encode(noise(), "PNG"), encode(noise("L"), "PNG"), encode(noise(), "JPEG"), encode(noise("P"), "GIF")]
VALID += [encode(noise(), "BMP"), encode(noise(), "WEBP"), encode(noise(), "TIFF"), encode(noise("CMYK"), "JPEG")]


def decodes_or_refuses(data: bytes) -> None:
    for spec in (GREY, COLOUR):
        try:
            pixels = decode_image(data, spec)
        except ImageError as error:
            message = str(error)
        else:
            message = f"{pixels.dtype} {pixels.shape}"
            assert message == f"uint8 {spec.shape}"
        assert message.splitlines() == [message]
        # These texts go to clients: nothing of this process is in them.
        assert " at 0x" not in message
        assert ".py" not in message


@given(st.binary(max_size=300))
def test_any_bytes_decode_or_raise_an_image_error(data: bytes) -> None:
    decodes_or_refuses(data)


@given(st.sampled_from(VALID), st.integers(0, 10_000), st.binary(min_size=1, max_size=8), st.integers(0, 10_000))
def test_damaged_images_decode_or_raise_an_image_error(data: bytes, at: int, patch: bytes, length: int) -> None:
    at %= len(data)
    damaged = data[:at] + patch + data[at + len(patch) :]
    decodes_or_refuses(damaged[: 1 + length % len(damaged)])


@pytest.mark.parametrize("data", VALID)
def test_formats_decode_to_their_own_pixels(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        wanted = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_image(data, COLOUR), wanted)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("part", [0.2, 0.6, 0.95])
def test_truncated_files_are_refused(kind: str, part: float) -> None:
    data = encode(noise(size=(64, 64)), kind)
    with pytest.raises(ImageError, match=r"cannot be decoded|not an image"):
        decode_image(data[: int(len(data) * part)], COLOUR)


def test_an_empty_file_is_named_as_such() -> None:
    with pytest.raises(ImageError, match="0 bytes"):
        decode_image(b"", GREY)


def test_other_bytes_are_named_by_their_start() -> None:
    with pytest.raises(ImageError, match="25 50 44 46"):
        decode_image(b"%PDF-1.7 and so on", GREY)


def test_formats_that_are_not_meant_for_bytes_from_strangers_are_refused() -> None:
    with pytest.raises(ImageError, match="known format"):
        decode_image(encode(noise(), "EPS"), COLOUR)


def test_grey_of_16_bits_is_scaled_and_not_clipped() -> None:
    values = np.array([[0, 255, 256, 40_000, 65_535, 128 << 8, 1, 2]] * 6, np.uint16)
    for kind in ("PNG", "TIFF"):
        pixels = decode_image(encode(Image.fromarray(values), kind), GREY)
        np.testing.assert_array_equal(pixels[0, :, 0], [0, 0, 1, 156, 255, 128, 0, 0])


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ImageError, match="floating-point"):
        decode_image(encode(Image.fromarray(np.full((6, 8), 0.5, np.float32)), "TIFF"), GREY)


def test_a_palette_gives_its_colours() -> None:
    image = Image.new("P", (8, 6), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    np.testing.assert_array_equal(decode_image(encode(image, "PNG"), COLOUR)[0, 0], [200, 100, 50])


def test_16_bit_greys_of_either_order_of_bytes_need_little_memory() -> None:
    values = np.random.default_rng(0).integers(0, 1 << 16, (600, 800), np.uint16)
    big_endian = Image.frombytes("I;16B", (800, 600), values.astype(">u2").tobytes())
    tracemalloc.start()
    for file in (encode(Image.fromarray(values), "PNG"), encode(big_endian, "TIFF")):
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        pixels = decode_image(file, ImageSpec(600, 800, 1))
        assert np.array_equal(pixels[:, :, 0], values >> 8)
        # Pillow's bytes, once in pieces and once in one, and the result twice.
        assert tracemalloc.get_traced_memory()[1] - before < 7 * values.size
    tracemalloc.stop()


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparency_is_the_same_in_strips(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (60, 80, 4), np.uint8)
    image = Image.fromarray(pixels)
    if mode == "P":
        file = encode(image.convert("RGB").quantize(200), "PNG", transparency=bytes(range(200)))
    else:
        file = encode(image.convert(mode), "PNG")
    for channels in (1, 3):
        spec = ImageSpec(60, 80, channels)  # type: ignore[arg-type]
        loaded = Image.open(io.BytesIO(file)).convert("RGBA")
        whole = Image.alpha_composite(Image.new("RGBA", loaded.size, (0, 0, 0, 255)), loaded)
        wanted = np.asarray(whole.convert("L" if channels == 1 else "RGB")).reshape(spec.shape)
        for strip_pixels in (1, 7 * 80, 1 << 18):
            monkeypatch.setattr(images, "_STRIP_PIXELS", strip_pixels)
            assert np.array_equal(decode_image(file, spec), wanted)


def test_transparency_is_laid_on_black() -> None:
    image = Image.new("RGBA", (8, 6), (255, 255, 255, 0))
    image.putpixel((1, 0), (200, 100, 50, 255))
    pixels = decode_image(encode(image, "PNG"), COLOUR)
    np.testing.assert_array_equal(pixels[0, :2], [[0, 0, 0], [200, 100, 50]])
    palette = Image.new("P", (8, 6), 1)
    palette.putpalette([9, 9, 9, 255, 255, 255])
    transparent = encode(palette, "PNG", transparency=1)
    assert decode_image(transparent, GREY).max() == 0


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (6, 8))  # lies on its side: upright it is 8 wide and 6 high
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    data = encode(image, "PNG", exif=exif)
    assert image_size_and_channels(data) == (6, 8, 3)
    assert np.argwhere(decode_image(data, GREY)[:, :, 0] == 255).tolist() == [[0, 7]]


def test_pixels_without_a_stated_range_are_refused() -> None:
    for values, what in ((np.full((6, 8), 200, np.int32), "32-bit"), (np.zeros((6, 8), np.float32), "floating-point")):
        with pytest.raises(ImageError, match=f"{what} pixels have no stated range"):
            decode_image(encode(Image.fromarray(values), "TIFF"), GREY)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_animations_are_refused(kind: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "green", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="more than one frame"):
        decode_image(data, COLOUR)


def test_a_camera_s_multi_picture_jpeg_gives_its_main_picture() -> None:
    data = encode(Image.new("RGB", (8, 6), "white"), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 6))])
    assert decode_image(data, COLOUR).min() == 255


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(MAX_IMAGE_PIXELS + 1, 1), (12_000, 8_000), (60_000, 60_000)])
def test_decompression_bombs_are_refused_by_their_header(width: int, height: int) -> None:
    with pytest.raises(ImageError, match="over the limit of 64000000 pixels"):
        decode_image(png_header(width, height), GREY)


def test_decoding_in_many_threads_leaves_the_warning_filters_alone() -> None:
    before = list(warnings.filters)
    started = threading.Barrier(4)

    def work(_: int) -> Pixels:
        started.wait()
        return decode_image(VALID[2], COLOUR)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(32)))
    assert all((one == results[0]).all() for one in results)
    assert warnings.filters == before


def test_other_sizes_are_resized_by_the_one_rule() -> None:
    image = noise(size=(40, 30))
    wanted = np.asarray(image.resize((8, 6), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode_image(encode(image, "PNG"), COLOUR), wanted)
    np.testing.assert_array_equal(fit_pixels(np.asarray(image), COLOUR), wanted)


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([None, 1, 3]), st.sampled_from([GREY, COLOUR]))
def test_decoded_pixels_fit_like_encoded_ones(height: int, width: int, channels: int | None, spec: ImageSpec) -> None:
    shape = (height, width) if channels is None else (height, width, channels)
    pixels = np.random.default_rng(height).integers(0, 256, shape, np.uint8)
    encoded = encode(Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels), "PNG")
    np.testing.assert_array_equal(fit_pixels(pixels, spec), decode_image(encoded, spec))


@pytest.mark.parametrize("shape", [(4,), (4, 4, 2), (4, 4, 4), (1, 4, 4, 3), (0, 4), (4, 0, 3)])
def test_arrays_that_are_no_image_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="are not a uint8 image"):
        fit_pixels(np.zeros(shape, np.uint8), GREY)


def test_pixels_of_another_dtype_are_refused() -> None:
    with pytest.raises(ImageError, match="float32"):
        fit_pixels(np.zeros((6, 8), np.float32), GREY)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("I;16", 1)]
)
def test_size_and_channels_of_a_file(mode: str, channels: int) -> None:
    image = Image.fromarray(np.zeros((6, 8), np.uint16)) if mode == "I;16" else noise(mode)
    assert image_size_and_channels(encode(image, "PNG")) == (6, 8, channels)


@pytest.mark.parametrize("arguments", [(0, 8, 1), (8, -1, 3), (8, 8, 2), (8, 8, 4)])
def test_image_specs_that_cannot_be_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="is not usable"):
        ImageSpec(*arguments)  # type: ignore[arg-type]


def test_an_unknown_resize_rule_is_refused() -> None:
    with pytest.raises(InputError, match="'crop'"):
        ImageSpec(8, 8, 1, "crop")


def test_a_lower_limit_of_pixels_holds_before_anything_is_decoded() -> None:
    spec = ImageSpec(8, 8, 1)
    assert decode_image(encode(Image.new("L", (50, 20)), "PNG"), spec, max_pixels=1000).shape == (8, 8, 1)
    # The pixels of this one are missing: refused for its size, it was never decoded.
    with pytest.raises(ImageError, match="1001 x 1 pixels are over the limit of 1000 pixels"):
        decode_image(png_header(1001, 1), spec, max_pixels=1000)


def test_text_in_a_png_that_unpacks_to_gigabytes_is_refused() -> None:
    text = b"note\0\0" + zlib.compress(bytes(200 << 20), 9)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    good = encode(Image.new("L", (8, 8)), "PNG")
    assert len(chunk) < 1 << 20
    with pytest.raises(ImageError, match="too large"):
        decode_image(good[:33] + chunk + good[33:], ImageSpec(8, 8, 1))
