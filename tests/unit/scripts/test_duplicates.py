"""The measurement of duplicates on a few pictures, and its tables."""

import json
from pathlib import Path

import pytest

from scripts import duplicates
from support.datasets import write_idx_dataset
from support.pictures import encoded, picture


def test_it_measures_and_its_tables_show_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "wall.png").write_bytes(encoded(picture(0, 300, patches=30)))
    digits = write_idx_dataset(tmp_path / "digits") / "train-images-idx3-ubyte.gz"
    monkeypatch.setattr(duplicates, "OUTPUT", tmp_path / "results" / "duplicates.json")
    duplicates.main(duplicates.Options(tmp_path / "photos", digits))
    result = json.loads(duplicates.OUTPUT.read_text())
    assert (result["photos"], result["images"]) == (["wall.png"], 240)
    assert len(result["thresholds"]) == len(duplicates.THRESHOLDS)
    assert list(result["pictures"].values()) == [16, 4, 240]
    assert all(row["pairs_of_two_classes"] <= row["pairs"] for row in result["thresholds"])
    assert result["found_again"]["128 x 128 px of photographs"]["JPEG, quality 75"] == 1.0
    result["thresholds"] = [
        {"distance": 4, "difference": 3.0, "pairs": 2000, "pairs_of_two_classes": 3, "duplicates": 24}
    ]
    row = duplicates.thresholds_table(result).splitlines()[2]
    assert row.endswith("thumbnails by up to 3 levels** | **2,000** | **3 (0.15 %)** | **24 (10 %)** |")
    assert "| JPEG, quality 75 | " in duplicates.found_table(result)
