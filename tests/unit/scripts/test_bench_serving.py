"""The page of `make bench-serving`."""

from scripts.serving_page import targets


def row(images_per_s: float) -> dict[str, object]:
    return {"images_per_s": images_per_s, "latency_ms": {"p50": 1.0, "p90": 2.0, "p99": 3.0, "p99.9": 4.0}}


def test_ratios_are_those_of_neighbours_in_a_round() -> None:
    names = [
        "engine", "bulk", "engine-onnxruntime", "bulk-onnxruntime", "bulk-naive", "singles-empty", "singles",
        "singles-naive", "streams-empty", "streams", "streams-naive", "interactive-idle", "interactive-beside-bulk",
    ]  # fmt: skip
    content = {
        "measured": {name: [row(100.0), row(100.0), row(200.0)] for name in names},
        "cold_start_s": [0.5, 0.7, 0.6],
        "memory": {"images": 1000, "samples": [(0.0, 1), (1.0, 1)], "growth": 0.012},
        "command": "make bench-serving", "commit": "0" * 40, "picked": "OpenVINO bfloat16", "rounds": 3,
        "machine": {"cpu": "some", "cores": 2},
    }  # fmt: skip
    for one in content["measured"]["interactive-beside-bulk"]:  # type: ignore[index]
        one["bulk_batch_ms"] = 1.0
    content["measured"]["bulk"] = [row(50.0), row(80.0), row(180.0)]  # type: ignore[index]
    text = targets(content)
    assert "| 80 | 100 | 0.80 (0.50 to 0.90) | >= 0.85 |" in text
    assert "0.60 s (0.50 to 0.70)" in text
    assert "+1.2 %" in text
    assert "batches on the full server | 1.50 (1.50 to 1.50) | <= 3 |" in text
    assert "OpenVINO bfloat16" in text
    assert "MLServer" not in text
    for name in ("bulk-oip", "bulk-oip-peer"):
        content["measured"][name] = [row(300.0 if name == "bulk-oip" else 100.0)] * 3  # type: ignore[index]
    content["peer"] = {"mlserver": "1.7.1", "onnxruntime": "1.32.0"}
    content["memory"]["by_images"] = [(100_000, 1 << 20), (200_000, 1 << 20)]  # type: ignore[index]
    text = targets(content)
    assert "| Open Inference Protocol: bulk, 16 in flight; MLServer | 300 | 100 | 3.00 (3.00 to 3.00) |  |" in text
    assert "MLServer 1.7.1 with ONNX Runtime 1.32.0 in float32" in text
    assert "serving_memory.png" in text
