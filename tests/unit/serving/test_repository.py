from pathlib import Path

import pytest

from prelabel.bundle import BUNDLE_FILE
from prelabel.errors import BundleError
from serving.repository import scan, select


def put(directory: Path, content: str = "{}") -> None:
    directory.mkdir(parents=True)
    (directory / BUNDLE_FILE).write_text(content)


def test_a_bundle_is_one_version_named_by_its_model_id(tmp_path: Path) -> None:
    put(tmp_path / "bundle", '{"model_id": "abc"}')
    (found,) = scan(tmp_path / "bundle")
    assert (found.version, found.directory) == ("abc", tmp_path / "bundle")


def test_folders_are_versions_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10", "9", "v11", "2026-01", "2025-12", ".11.new"):
        put(tmp_path / name)
    (tmp_path / "12").mkdir()  # still being copied
    (tmp_path / "13").write_text("no folder")
    assert [found.version for found in scan(tmp_path)] == ["2025-12", "2026-01", "9", "10", "v11"]


def test_a_changed_bundle_has_another_signature(tmp_path: Path) -> None:
    put(tmp_path / "1", '{"model_id": "abc"}')
    before = scan(tmp_path)
    assert scan(tmp_path) == before
    (tmp_path / "1" / BUNDLE_FILE).write_text('{"model_id": "abd"}')
    assert scan(tmp_path)[0].signature != before[0].signature


def test_a_folder_that_may_not_be_looked_into_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("1", "lost+found", "2"):
        put(tmp_path / name)
    is_file, read_bytes = Path.is_file, Path.read_bytes

    def refusing(path: Path) -> bool:  # permissions do not bind root, as whom tests may run
        if path.parent.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    def unreadable(path: Path) -> bytes:
        if path.parent.name == "2":
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "is_file", refusing)
    monkeypatch.setattr(Path, "read_bytes", unreadable)
    found = scan(tmp_path)
    assert [bundle.version for bundle in found] == ["1", "2"], "2 is there; loading it tells that it cannot be read"
    assert scan(tmp_path) == found


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00", '{"model_id": 3}'])
def test_a_damaged_bundle_is_found_so_that_loading_can_name_it(tmp_path: Path, content: str) -> None:
    put(tmp_path / "bundle", content)
    assert len(scan(tmp_path / "bundle")) == 1


def test_a_directory_without_bundles_is_an_error(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BundleError, match="make export"):
            scan(root)


def test_versions_are_chosen_by_name(tmp_path: Path) -> None:
    for name in ("1", "2", "3"):
        put(tmp_path / name)
    found = scan(tmp_path)

    def chosen(versions: str) -> tuple[list[str], list[str]]:
        bundles, missing = select(found, versions)
        return [bundle.version for bundle in bundles], missing

    assert chosen("latest") == (["3"], [])
    assert chosen("all") == (["1", "2", "3"], [])
    assert chosen("2, 1") == (["1", "2"], [])
    assert chosen("4,1,5") == (["1"], ["4", "5"])
