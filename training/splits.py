"""Where a data set's training and test images lie."""

import logging
from collections.abc import Sequence
from pathlib import Path

from prelabel.errors import InputError
from prelabel.sources import (
    FolderSource,
    IdxSource,
    ListSource,
    NpzSource,
    Source,
    matched_names,
    open_source,
    open_splits,
    warn_of_left_out,
)
from prelabel.sources.folder import LABELLED, TEST, UNLABELLED
from prelabel.sources.idx import is_idx_images
from prelabel.sources.parquet import is_table
from prelabel.sources.tar import is_tar
from prelabel.storage import Storage, open_storage, printable

logger = logging.getLogger(__name__)


def find_splits(path: Path | str) -> tuple[Source, Source | None]:
    """Returns the training and, where there is one, the test split at a data path or URL.

    Raises:
        InputError: There is no data set at the path.
    """
    storage = open_storage(path)
    if storage.kind() != "folder":
        matched = matched_names(path)
        splits = open_splits(*matched) if matched else None
        if splits is not None:
            return splits
        source = open_source(path)
        return source.splits() if isinstance(source, ListSource) else (source, None)
    names = storage.names()
    idx = [name for name in names if name.startswith("train-images") and is_idx_images(name)]
    if _labelled_folders(names):
        # Beside them lie the files that they were unpacked from, predictions, lists of duplicates.
        if beside := [name for name in names if is_tar(name) or is_table(name) or name == "train.npz" or name in idx]:
            logger.warning("not read, since %s holds folders of images: %s", storage.shown(), ", ".join(beside[:3]))
        return _folder_splits(storage, names)
    if idx:
        test_idx = [name for name in names if name.startswith("t10k-images") and is_idx_images(name)]
        return IdxSource(idx[0], storage), IdxSource(test_idx[0], storage) if test_idx else None
    if "train.npz" in names:
        return NpzSource("train.npz", storage), NpzSource("test.npz", storage) if "test.npz" in names else None
    splits = open_splits(storage, names)
    return _folder_splits(storage, names) if splits is None else splits


def _folder_splits(storage: Storage, names: Sequence[str]) -> tuple[Source, Source | None]:
    labelled_folders = _labelled_folders(names)
    if not labelled_folders:
        found = ", ".join(name.rstrip("/") for name in names[:5]) or "nothing"
        raise InputError(
            f"{storage.shown()} is no data set: wanted are labelled/<class>/ (and unlabelled/), "
            f"train-images-idx3-ubyte[.gz], train.npz, *.parquet or *.tar; found {found}"
        )
    train = FolderSource(storage, only=(*LABELLED, *UNLABELLED))
    warn_of_left_out(train, storage.shown())
    with_images: set[str] = set()
    loose: list[str] = []
    has_pile = False
    for name, _ in train.entries():
        folder, *rest = name.split("/")
        if folder in LABELLED:
            (loose.append if len(rest) == 1 else with_images.add)(rest[0])
        has_pile |= len(rest) == 1 or folder in UNLABELLED
    if loose:
        logger.warning(
            "%d images lie in %s without a class folder and count as unlabelled, for example %s",
            len(loose), storage.shown(labelled_folders[0]), loose[0],
        )  # fmt: skip
    for folder in labelled_folders:
        for entry in storage.names(folder):
            if entry.endswith("/") and printable(entry[:-1]) not in with_images:
                shown = storage.shown(f"{folder}/{entry[:-1]}")
                logger.warning("%s holds no images: there will be no class %r", shown, entry[:-1])
    _warn_of_others(storage, names, has_pile)
    test = FolderSource(storage, only=(TEST,))
    return train, test if len(test) else None


def _labelled_folders(names: Sequence[str]) -> list[str]:
    return [name for name in LABELLED if f"{name}/" in names]


def _warn_of_others(storage: Storage, names: Sequence[str], has_pile: bool) -> None:
    """Logs which folders of images would have been read under another name."""
    known = (*LABELLED, *UNLABELLED, TEST)
    folders = [name.rstrip("/") for name in names if name.endswith("/") and not name.startswith(".")]
    others = [name for name in folders if name not in known]
    for name in [name for name in others if name.lower() in known]:
        logger.warning("%s is not read: rename it to %s", storage.shown(name), name.lower())
    if has_pile:
        return
    counts = {
        name: len(FolderSource(storage, only=(name,))) for name in others if name.lower() not in (*LABELLED, TEST)
    }
    if found := {name: count for name, count in counts.items() if count}:
        name = max(found, key=lambda name: (name.lower() in UNLABELLED, found[name]))
        logger.warning(
            "there is no pile: %s is not there or empty, and %s with %d images is not read; a pile is read from %s/",
            storage.shown(UNLABELLED[0]), storage.shown(name), found[name], UNLABELLED[0],
        )  # fmt: skip
