"""NumPy archives: what is read back is what was written, nothing is unpickled, and damage is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from prelabel.errors import InputError
from prelabel.sources import open_source

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 16, 16), np.uint8)


def write(path: Path, *, compressed: bool = False, **content: Any) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **content)
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    images=arrays.arrays(
        np.uint8,
        st.builds(
            lambda sizes, channels: (*sizes, *channels),
            arrays.array_shapes(min_dims=3, max_dims=3, max_side=6),
            st.sampled_from([(), (1,), (3,)]),
        ),
    ),
    compressed=st.booleans(),
    start=st.integers(0, 6),
    stop=st.integers(0, 8),
)
def test_what_is_read_is_what_was_written(
    tmp_path: Path, images: NDArray[np.uint8], compressed: bool, start: int, stop: int
) -> None:
    source = open_source(write(tmp_path / "x.npz", compressed=compressed, images=images))
    assert len(source) == len(images)
    found = list(source.read(start, stop))
    assert [one.id for one in found] == [f"{i:06d}" for i in range(start, min(stop, len(images)))]
    for one, wanted in zip(found, images[start:stop], strict=True):
        np.testing.assert_array_equal(one.content, wanted)


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (np.array([3, -1, 0]), ["3", None, "0"]),
        (np.array([3, 4, 0], np.uint8), ["3", "4", "0"]),
        (np.array(["cat", "", "-1"]), ["cat", None, None]),
    ],
)
def test_labels(tmp_path: Path, labels: NDArray[Any], wanted: list[str | None]) -> None:
    source = open_source(write(tmp_path / "x.npz", images=IMAGES[:3], labels=labels))
    assert [one.label for one in source.read(0, 3)] == wanted


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": IMAGES}, "has no array 'images': it has x"),
        (
            {"images": IMAGES.astype(np.float32)},
            r"'images' is float32 \[40, 16, 16\], .*: save np\.clip\(np\.rint",
        ),
        ({"images": IMAGES > 9}, r"'images' is bool .*: save images \* np\.uint8\(255\)"),
        (
            {"images": IMAGES.astype(np.uint16)},
            r"uint16 .*: save images\.astype\(np\.uint8\) where they are 0",
        ),
        (
            {"images": IMAGES[:39].reshape(13, 3, 16, 16) / 255},
            r"float64 .*: save np\.clip.*; also, images of 16 channels, .*: save np\.moveaxis\(images, 1, -1\)",
        ),
        ({"images": IMAGES.reshape(40, 256)}, r"\[40, 256\], .*: save images\.reshape\(len\(images\), height, width\)"),
        ({"images": IMAGES[0]}, r"'images' is uint8 \[16, 16\]"),
        ({"images": IMAGES[None, None]}, r"'images' is uint8 \[1, 1, 40, 16, 16\], wanted is .* \[n, h, w, 1 or 3\]"),
        (
            {"images": IMAGES.reshape(40, 8, 8, 4)},
            r"\[40, 8, 8, 4\], images of 4 channels, .*: save images\[\.\.\., :3\]",
        ),
        ({"images": IMAGES.reshape(40, 8, 16, 2)}, r"images of 2 channels, .*: save images\[\.\.\., :1\], or the"),
        (
            {"images": IMAGES[:39].reshape(13, 3, 16, 16)},
            r"images of 16 channels, .*: save np\.moveaxis\(images, 1, -1\)",
        ),
        ({"images": IMAGES[:, :0]}, r"\[40, 0, 16\], images without pixels"),
        ({"images": np.asfortranarray(IMAGES)}, r"in Fortran's order, .*: save np\.ascontiguousarray\(images\)"),
        ({"images": np.array([[[None]]])}, r"'images' is object .*: save np\.stack\(images\), or"),
        ({"images": IMAGES, "labels": np.zeros(39, int)}, r"'labels' is int64 \[39\]"),
        ({"images": IMAGES, "labels": np.zeros(40)}, r"'labels' is float64 .*: save labels\.astype\(int\), with -1"),
        ({"images": IMAGES, "labels": np.eye(40)}, r": save labels\.argmax\(axis=1\) where each row marks one class"),
        ({"images": IMAGES, "labels": np.zeros((40, 1), int)}, r": save labels\.ravel\(\)"),
        ({"images": IMAGES, "labels": np.full(40, b"a")}, r": save labels\.astype\(str\), with '' where unknown"),
        ({"images": IMAGES, "labels": np.full(40, -2)}, "label -2 is not usable"),
        (
            {"images": IMAGES, "labels": np.array([None] * 40)},
            r"an array of objects: save labels\.astype\(str\)",
        ),
        ({"images": IMAGES[:0]}, r"holds no images \(0 rows\)"),
    ],
)
def test_arrays_that_cannot_be_used_are_named(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_source(write(tmp_path / "x.npz", **content))
    assert str(tmp_path / "x.npz") in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(
    at=st.integers(0, 100_000), patch=st.binary(min_size=1, max_size=30), cut=st.booleans(), compressed=st.booleans()
)
def test_damage_is_an_error_and_never_other_pixels(
    tmp_path: Path, at: int, patch: bytes, cut: bool, compressed: bool
) -> None:
    content = write(tmp_path / "w.npz", compressed=compressed, images=IMAGES, labels=np.arange(40)).read_bytes()
    at %= len(content)
    (tmp_path / "x.npz").write_bytes(content[:at] if cut else content[:at] + patch + content[at + len(patch) :])
    try:
        source = open_source(tmp_path / "x.npz")
        found = list(source.read(0, len(source)))
    except InputError as error:
        refused = str(error)
        assert str(tmp_path / "x.npz") in refused
        return
    for one, image in zip(found, IMAGES, strict=True):  # what was damaged matters to nobody: a date, a comment
        np.testing.assert_array_equal(one.content, image)


def test_one_wrong_bit_is_noticed_before_a_row_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.npz", images=IMAGES)
    content = bytearray(path.read_bytes())
    content[content.index(IMAGES[20].tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npz is not a readable npz file: Bad CRC-32 .*; save it again"):
        open_source(path)


def test_the_manifest_is_that_of_the_arrays(tmp_path: Path) -> None:
    hashes = [
        open_source(write(tmp_path / name, **content)).manifest_hash
        for name, content in {
            "a.npz": {"images": IMAGES},
            "b.npz": {"images": IMAGES, "other": IMAGES},
            "c.npz": {"images": IMAGES[::-1].copy()},
            "d.npz": {"images": IMAGES, "labels": np.arange(40)},
        }.items()
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_a_folder_of_npz_files_names_one_of_them(tmp_path: Path) -> None:
    write(tmp_path / "train.npz", images=IMAGES)
    with pytest.raises(InputError, match=r"holds npz files: name one of them, for example .*train\.npz"):
        open_source(tmp_path)
