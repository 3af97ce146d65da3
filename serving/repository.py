"""What a directory of models holds: one bundle, or a folder of bundles whose names are versions. Loads nothing."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from prelabel.bundle import BUNDLE_FILE
from prelabel.errors import BundleError


@dataclass(frozen=True)
class Found:
    """A bundle that lies in the directory; it may be damaged, which loading tells."""

    version: str
    """The folder's name; for a single bundle its model_id."""
    directory: Path
    """Where it lies."""
    signature: str
    """Hash of bundle.json, which names the hash of every other file: another signature is another model."""


def scan(root: Path) -> list[Found]:
    """Returns the bundles in a directory, the latest last; folders without a bundle.json and hidden ones are left out.

    So are folders that this user may not look into, such as lost+found.

    Versions that are numbers go by their size, after the others, which go by their names: 2 < 10, 2025-12 < 2026-01.

    Raises:
        BundleError: There is none.
    """
    try:
        if (root / BUNDLE_FILE).is_file():
            content = (root / BUNDLE_FILE).read_bytes()
            return [Found(_model_id(content), root, _hash(content))]
        folders = [path for path in root.iterdir() if not path.name.startswith(".")]
        found = [Found(path.name, path, _signature(path / BUNDLE_FILE)) for path in folders if _holds_bundle(path)]
    except (FileNotFoundError, NotADirectoryError):
        found = []
    except OSError as error:
        raise BundleError(f"{root} cannot be read: {error.strerror or error}") from None
    if not found:
        raise BundleError(
            f"{root} holds no model bundle ({BUNDLE_FILE} is missing) and no folders with one: make one with "
            "`make export`"
        )
    return sorted(found, key=lambda bundle: _order(bundle.version))


def select(found: list[Found], versions: str) -> tuple[list[Found], list[str]]:
    """Returns the bundles that are to be served, the latest last; and the names of wanted ones that are not there.

    Args:
        found: As `scan` returns it.
        versions: `latest`, `all`, or names separated by commas.
    """
    if versions == "latest":
        return found[-1:], []
    if versions == "all":
        return found, []
    names = [name.strip() for name in versions.split(",")]
    known = {bundle.version for bundle in found}
    return [bundle for bundle in found if bundle.version in names], [name for name in names if name not in known]


def _order(version: str) -> tuple[bool, int, str]:
    number = re.fullmatch(r"v?(\d{1,18})", version)
    return (True, int(number[1]), version) if number else (False, 0, version)


def _holds_bundle(folder: Path) -> bool:
    try:
        return (folder / BUNDLE_FILE).is_file()
    except PermissionError:
        return False


def _signature(file: Path) -> str:
    try:
        return _hash(file.read_bytes())
    except PermissionError as error:
        return str(error)  # loading it says what is wrong


def _model_id(content: bytes) -> str:
    try:
        return str(json.loads(content)["model_id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "damaged"  # loading it says what is wrong


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
