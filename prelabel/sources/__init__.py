"""Readers of image collections: one file per kind, one interface, the same ids in the same order for everyone.

`open_source` chooses by what lies at the path. Training, bulk work and evaluation all read through it.
"""

from pathlib import Path

from prelabel.errors import InputError
from prelabel.images import IMAGE_SUFFIXES
from prelabel.sources.base import Sample, Source, section
from prelabel.sources.folder import FolderSource
from prelabel.sources.idx import IdxSource, is_idx_images
from prelabel.sources.parquet import ParquetSource

__all__ = ["FolderSource", "IdxSource", "ParquetSource", "Sample", "Source", "open_source", "section"]


def open_source(path: Path) -> Source:
    """Opens a folder of images, a Parquet file (or a folder of them), or an IDX image file.

    Raises:
        InputError: Nothing lies at the path, or it is none of these kinds, or it holds no image.
    """
    if not path.exists():
        raise InputError(f"input {path} does not exist")
    source = _open(path)
    if not len(source):
        raise InputError(_nothing_found(path) if path.is_dir() else f"input {path} holds no images (0 rows)")
    return source


def _open(path: Path) -> Source:
    if path.is_dir():
        tables = sorted(path.glob("*.parquet"))
        return ParquetSource(tables) if tables else FolderSource(path)
    if path.suffix == ".parquet":
        return ParquetSource([path])
    if is_idx_images(path):
        return IdxSource(path)
    raise InputError(
        f"input {path} is not a folder of images, a .parquet file or an IDX image file (*-idx3-ubyte[.gz])"
    )


def _nothing_found(path: Path) -> str:
    if idx := sorted(file.name for file in path.iterdir() if is_idx_images(file)):
        return f"input {path} holds IDX files: name one of them, for example {path / idx[0]}"
    return f"input {path} holds no images ({' '.join(sorted(IMAGE_SUFFIXES))}) and no .parquet file"
