"""The measurement's table, and that both graphs are measured."""

from pathlib import Path

from prelabel.images import ImageSpec
from scripts.graph_speed import Options, measure, table


def test_both_graphs_take_turns_and_the_table_shows_their_ratio() -> None:
    entry = measure(ImageSpec(8, 8, 1), 3, Options(rounds=2, images=6, results=Path("unused")))
    assert [len(speeds) for speeds in entry["images_per_s"].values()] == [2, 2]
    entry |= {"images_per_s": {"as converted": [1000.0, 2000.0], "folded": [1500.0, 4000.0]}, "ratios": [1.5, 2.0]}
    result = {
        "command": "measure", "commit": "0123456789abcdef", "machine": {"cpu": "fast", "cores": 2},
        "versions": {"onnxruntime": "1"}, "rounds": 2, "graphs": [entry],
    }  # fmt: skip
    assert table(result).splitlines()[2] == "| 8x8x1 | 3 | 1,500 | 2,750 | 1.75 x (1.50 to 2.00) |"
