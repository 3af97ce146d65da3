"""Readers of image collections: one file per kind, one interface, the same ids in the same order for everyone.

`open_source` chooses by what lies at a path or URL. Training, bulk work and evaluation all read through it.
"""

import fnmatch
import logging
import posixpath
import re
from pathlib import Path

from prelabel.errors import InputError
from prelabel.images import IMAGE_SUFFIXES
from prelabel.sources.base import PixelRows, PixelSource, Sample, Source, SpotSource, section
from prelabel.sources.batches import batches
from prelabel.sources.folder import FolderSource, is_image_name
from prelabel.sources.idx import IdxSource, is_idx_images
from prelabel.sources.listing import ListSource
from prelabel.sources.npz import NpzSource, is_npz
from prelabel.sources.parquet import ParquetSource, is_table
from prelabel.sources.tar import TarSource, is_packed_tar, is_tar
from prelabel.storage import Storage, locate, open_storage, printable

__all__ = [
    "FolderSource",
    "IdxSource",
    "ListSource",
    "NpzSource",
    "ParquetSource",
    "PixelRows",
    "PixelSource",
    "Sample",
    "Source",
    "SpotSource",
    "TarSource",
    "batches",
    "is_image_name",
    "matched_names",
    "open_source",
    "open_splits",
    "open_tables_or_shards",
    "section",
    "warn_of_left_out",
]

logger = logging.getLogger(__name__)

_VALIDATION = re.compile(r"(?:dev|val|valid|validation)(?![A-Za-z])")
"""How names of files begin that are for choosing among models."""
_PATTERN_SIGNS = frozenset("*?[")


def open_source(path: Path | str) -> Source:
    """Opens a collection at a path or URL.

    A folder of images, a Parquet file or tar shard (or a folder or pattern of them: `shards/train-*.tar`), an IDX image
    file, an npz file, or a .txt list of paths and URLs.

    Raises:
        InputError: Nothing lies at the path, or it is none of these kinds, or it holds no image.
        StorageError: The object store does not answer, or lets this caller not in.
    """
    matched = _matched(path)
    source = _open(*locate(path)) if matched is None else matched
    if isinstance(source, FolderSource):
        warn_of_left_out(source, printable(str(path)))
    if not len(source):
        raise InputError(_nothing_found(*open_storage(path).split() if matched is not None else locate(path)))
    return source


def warn_of_left_out(source: FolderSource | TarSource, shown: str) -> None:
    """Logs which image files of a folder or of tar files, called `shown`, are not read."""
    if source.left_out:
        endings = ", ".join(f"{count:,} {ending}" for ending, count in source.left_out.most_common())
        logger.warning("left out of %s, since they are not read: %s; convert them to .png or .jpg", shown, endings)
    if isinstance(source, TarSource) and source.beside:
        logger.warning(
            "left out of %s: %d images that share their name up to the first dot with another one, as masks do (%s); "
            "rename them if they are images of their own",
            shown, source.beside, source.first_beside,
        )  # fmt: skip


def _warn_of_packed(storage: Storage, names: list[str]) -> None:
    packed = [printable(name) for name in names if is_packed_tar(name) and not name.startswith(".")]
    if packed:
        some = f"{', '.join(packed[:3])}{', ...' if len(packed) > 3 else ''}"
        what = f"{len(packed):,} packed tar file{'s' if len(packed) > 1 else ''} ({some})"
        logger.warning("left out of %s, since they are not read: %s; unpack them to .tar", storage.shown(), what)


def open_tables_or_shards(storage: Storage, names: list[str]) -> Source | None:
    """Opens the Parquet files or the tar shards among some names of a folder; None where there are neither.

    Hidden files are left out: macOS puts a `._train.parquet` beside each copy of `train.parquet`. Packed tar files, and
    members in formats that are not read, are left out and logged.

    Raises:
        InputError: There are both, or one cannot be used.
    """
    tables = [name for name in names if is_table(name) and not name.startswith(".")]
    shards = [name for name in names if is_tar(name) and not name.startswith(".")]
    if tables and shards:
        raise InputError(
            f"{storage.shown()} holds Parquet files ({tables[0]}, ...) and tar files ({shards[0]}, ...): name one "
            f"kind, for example {storage.shown('*.tar')}"
        )
    if not tables and not shards:
        return None
    _warn_of_packed(storage, names)
    if tables:
        return ParquetSource(storage, tables)
    source = TarSource(storage, shards)
    warn_of_left_out(source, storage.shown(shards[0]) if len(names) == 1 else storage.shown())
    return source


def open_splits(storage: Storage, names: list[str]) -> tuple[Source, Source | None] | None:
    """Opens a folder's Parquet files or tar shards for training, and those for the test, whose names begin with `test`.

    Those for validation, such as `validation-00000.parquet`, are left out and logged: somebody keeps them for that.

    Returns:
        None where the names are of neither.

    Raises:
        InputError: As `open_tables_or_shards`; or there are files for the test or validation only.
    """
    files = [name for name in names if is_table(name) or is_tar(name)]
    tests = [name for name in files if name.startswith("test")]
    validations = [name for name in files if _VALIDATION.match(name)]
    train = open_tables_or_shards(storage, [name for name in names if name not in {*tests, *validations}])
    test = open_tables_or_shards(storage, tests)
    if train is not None:
        if validations:
            logger.warning(
                "not read, since they are for validation by their names: %s in %s; rename them to train on them",
                ", ".join(printable(name) for name in validations[:3]), storage.shown(),
            )  # fmt: skip
        return train, test
    if tests or validations:
        raise InputError(
            f"{storage.shown()} holds files for the test or validation only ({printable([*tests, *validations][0])}, "
            "...): rename those to train on"
        )
    return None


def matched_names(path: Path | str) -> tuple[Storage, list[str]] | None:
    """Returns the folder and the names in it that a pattern stands for.

    None where it is no pattern, or something has just this name.
    """
    storage, pattern = open_storage(path).split()
    if not _PATTERN_SIGNS & set(pattern) or storage.kind(pattern) != "nothing" or storage.kind() != "folder":
        return None
    return storage, fnmatch.filter(storage.names(), pattern)


def _matched(path: Path | str) -> Source | None:
    """Opens the files that a pattern stands for; None as for `matched_names`."""
    found = matched_names(path)
    if found is None:
        return None
    source = open_tables_or_shards(*found)
    if source is None:
        raise InputError(
            f"input {printable(str(path))} stands for no .tar or .parquet file: a pattern names such files; images "
            "are read from their folder, or a .txt list of them"
        )
    return source


def _open(storage: Storage, name: str) -> Source:
    if not name:
        return _open_folder(storage)
    source = open_tables_or_shards(storage, [name])
    if source is not None:
        return source
    if is_idx_images(name):
        return IdxSource(name, storage)
    if is_npz(name):
        return NpzSource(name, storage)
    if posixpath.splitext(name)[1] == ".txt":
        return ListSource(name, storage)
    hint = ": unpack it to a .tar" if is_packed_tar(name) else ""
    if is_image_name(name):
        hint = f": name the folder that it lies in, {storage.shown()}"
    raise InputError(
        f"input {storage.shown(name)} is not a folder of images, a .parquet, .tar or .npz file, an IDX image file "
        f"(*-idx3-ubyte[.gz]) or a .txt list of paths{hint}"
    )


def _open_folder(storage: Storage) -> Source:
    names = storage.names()
    source = open_tables_or_shards(storage, names)
    if source is None:
        _warn_of_packed(storage, names)
        return FolderSource(storage)
    if len(FolderSource(storage)):
        what, pattern = ("tar", "*.tar") if isinstance(source, TarSource) else ("Parquet", "*.parquet")
        raise InputError(
            f"{storage.shown()} holds images and {what} files: name the {what} files ({storage.shown(pattern)}), or "
            "keep the images in a folder of their own"
        )
    return source


def _nothing_found(storage: Storage, name: str) -> str:
    shown = storage.shown(name)
    files = [one for one in storage.names() if not one.endswith("/")] if not name else []
    if name or any(is_table(one) or is_tar(one) for one in files if not one.startswith(".")):
        return f"input {shown} holds no images (0 rows)"
    for what, found in (("IDX", is_idx_images), ("npz", is_npz)):
        if named := [one for one in files if found(one)]:
            return f"input {shown} holds {what} files: name one of them, for example {storage.shown(named[0])}"
    below = next((one for one, _ in storage.walk() if is_table(one) or is_tar(one)), None)
    if below is not None:  # as in a copy of a Hugging Face data set, which has them in data/
        folder, file = posixpath.split(below)
        return f"input {shown} holds no images itself, but {storage.shown(folder)} holds {file}: name that folder"
    return f"input {shown} holds no images ({' '.join(sorted(IMAGE_SUFFIXES))}) and no .parquet or .tar file"
