"""IDX files: what is read back is what was written, and damage is named."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from prelabel.errors import InputError
from prelabel.sources import open_source
from prelabel.sources.idx import IdxSource, labels_name, read_idx
from prelabel.storage_local import LocalStorage

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


def idx(array: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    arrays.arrays(np.uint8, arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)),
    st.sampled_from(["", ".gz"]),
)
def test_what_is_read_is_what_was_written(tmp_path: Path, array: NDArray[np.uint8], suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(gzip.compress(idx(array), 1) if suffix else idx(array))
    np.testing.assert_array_equal(read_idx(LocalStorage(tmp_path), path.name, array.ndim), array)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.binary(max_size=60), st.sampled_from(["", ".gz"]))
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data)
    try:
        result = f"{read_idx(LocalStorage(tmp_path), path.name, 3).ndim} dimensions"
    except InputError as error:
        result = str(error)
    assert result == "3 dimensions" or str(path) in result


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.integers(0, 10_000))
def test_a_cut_file_is_refused_wherever_it_was_cut(tmp_path: Path, at: int) -> None:
    for suffix, data in (("", idx(IMAGES)), (".gz", gzip.compress(idx(IMAGES)))):
        path = tmp_path / f"x{suffix}"
        path.write_bytes(data[: at % len(data)])
        with pytest.raises(InputError):
            read_idx(LocalStorage(tmp_path), path.name, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (idx(IMAGES)[:-1], r"its header says \[2, 3, 4\], but 23 bytes follow"),
        (idx(IMAGES) + b"x", "but 25 bytes follow"),
        (b"\0\0\x0d\x03" + idx(IMAGES)[4:], r"header 00 00 0d 03"),
        (idx(IMAGES[0]), r"3 dimensions \(header 00 00 08 02\)"),
        # 2^22 * 2^22 * 2^22 bytes would be 0 in 64 bits.
        (bytes([0, 0, 8, 3]) + struct.pack(">3I", 1 << 22, 1 << 22, 1 << 22), "but 0 bytes follow"),
    ],
)
def test_wrong_files_are_named_with_what_is_wrong(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_idx(LocalStorage(tmp_path), "x", 3)


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(idx(IMAGES)))
    data[-6] ^= 1  # in the checksum
    (tmp_path / "x.gz").write_bytes(data)
    with pytest.raises(InputError, match=r"x\.gz cannot be read: CRC"):
        read_idx(LocalStorage(tmp_path), "x.gz", 3)


def test_labels_lie_beside_the_images() -> None:
    for images, labels in {
        "train-images-idx3-ubyte.gz": "train-labels-idx1-ubyte.gz",
        "t10k-images.idx3-ubyte": "t10k-labels.idx1-ubyte",
        "my-images-images-idx3-ubyte": "my-images-labels-idx1-ubyte",
    }.items():
        assert labels_name(images) == labels


def test_rows_have_numbers_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(idx(IMAGES))
    assert [sample.label for sample in open_source(path).read(0, 2)] == [None, None]
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.array([7, 0], np.uint8)))
    samples = list(open_source(path).read(1, 9))
    assert [(one.id, one.path, one.label) for one in samples] == [("000001", f"{path}#1", "0")]
    assert isinstance(samples[0].content, np.ndarray)
    np.testing.assert_array_equal(samples[0].content, IMAGES[1])


def test_labels_of_another_number_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(idx(IMAGES))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(3, np.uint8)))
    with pytest.raises(InputError, match="has 3 labels, but train-images-idx3-ubyte has 2 images"):
        list(open_source(path).read(0, 1))


def test_an_empty_file_holds_no_images(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(idx(np.zeros((0, 3, 4), np.uint8)))
    with pytest.raises(InputError, match="holds no images"):
        open_source(path)


def test_the_manifest_is_that_of_the_pixels(tmp_path: Path) -> None:
    hashes = set()
    for name, images, suffix in (
        ("a", IMAGES, ""),
        ("b", IMAGES, ".gz"),
        ("c", IMAGES[::-1], ""),
        ("d", IMAGES.reshape(2, 4, 3), ""),
    ):
        path = tmp_path / f"{name}-images-idx3-ubyte{suffix}"
        data = idx(np.ascontiguousarray(images))
        path.write_bytes(gzip.compress(data) if suffix else data)
        hashes.add(IdxSource(path).manifest_hash)
    assert len(hashes) == 3  # a and b are the same images
