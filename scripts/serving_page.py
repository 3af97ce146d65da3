"""docs/serving.md's tables and pictures of `make bench-serving`, from docs/results/serving.json."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.bench_processes import BULK
from scripts.bench_serving import CONNECTIONS, SINGLES_IN_FLIGHT

Row = dict[str, Any]
Content = dict[str, Any]


FURTHER = (
    (
        f"two processes: single images on {CONNECTIONS} connections; one process",
        "singles-processes",
        "singles-connections",
    ),
    (f"two processes: bulk on {CONNECTIONS} connections; one process", "bulk-processes", "bulk-connections"),
    ("Open Inference Protocol: bulk, 16 in flight; MLServer", "bulk-oip", "bulk-oip-peer"),
    ("the same, ours with ONNX Runtime in float32, too", "bulk-oip-onnxruntime", "bulk-oip-peer"),
    ("the same, asked by tritonclient", "bulk-oip-tritonclient", "bulk-oip-tritonclient-peer"),
    (
        f"Open Inference Protocol: single images, {SINGLES_IN_FLIGHT} in flight; MLServer",
        "singles-oip",
        "singles-oip-peer",
    ),
    ("the same, asked by tritonclient", "singles-oip-tritonclient", "singles-oip-tritonclient-peer"),
)
"""Title, ours, the other one: what is measured with options that not every result has."""


def targets(content: Content) -> str:
    """Returns what was measured against what it is compared with, and the aims."""
    measured = content["measured"]

    def speeds(name: str) -> list[float]:
        return [row["images_per_s"] for row in measured[name]]

    def against(title: str, ours: str, other: str, aim: str) -> str:
        ratios = [mine / theirs for mine, theirs in zip(speeds(ours), speeds(other), strict=True)]
        return f"| {title} | {_median(speeds(ours))} | {_median(speeds(other))} | {_ratio(ratios)} | {aim} |"

    beside = measured["interactive-beside-bulk"]
    p99 = [row["latency_ms"]["p99"] for row in beside]
    p99_idle = [row["latency_ms"]["p99"] for row in measured["interactive-idle"]]
    # A core runs one batch at a time; the engine alone was measured on both.
    batches_alone = [ms * row["images_per_s"] / (2e3 * BULK) for ms, row in zip(p99, measured["engine"], strict=True)]
    batches_loaded = [ms / (2.0 * row["bulk_batch_ms"]) for ms, row in zip(p99, beside, strict=True)]
    lines = [
        "| images/s | the server | compared with | ratio | aim |",
        "|---|---|---|---|---|",
        against(f"bulk, {BULK} a message, 2 streams; the engine alone on both cores", "bulk", "engine", ">= 0.85"),
        against("the same with ONNX Runtime in float32", "bulk-onnxruntime", "engine-onnxruntime", ">= 0.85"),
        against("bulk; the naive server, 16 in flight", "bulk", "bulk-naive", ">= 3"),
        against("bulk with ONNX Runtime in float32; the naive server", "bulk-onnxruntime", "bulk-naive", ""),
        against(
            f"single images, {SINGLES_IN_FLIGHT} in flight; an empty handler", "singles", "singles-empty", ">= 0.75"
        ),
        against(f"single images, {SINGLES_IN_FLIGHT} in flight; the naive server", "singles", "singles-naive", ">= 2"),
        against("single images on 4 streams; an empty handler", "streams", "streams-empty", ">= 0.6"),
        against("single images on 4 streams; the naive server", "streams", "streams-naive", ""),
        *(against(*row, "") for row in FURTHER if row[1] in measured and row[2] in measured),
        "",
        "| | median (extremes) | aim |",
        "|---|---|---|",
        f"| 99th percentile of one person's request, server full of bulk work | {_spread(p99, 'ms')} | <= 60 ms |",
        f"| that time in bulk batches of the engine alone, on an idle core | {_ratio(batches_alone)} | <= 3 |",
        f"| that time in bulk batches on the full server | {_ratio(batches_loaded)} | <= 3 |",
        f"| 99th percentile with nothing else to do | {_spread(p99_idle, 'ms')} | |",
        f"| from start to ready | {_spread(content['cold_start_s'], 's')} | <= 1.5 s |",
    ]
    if "memory" in content:
        images = content["memory"]["images"]
        growth = 100.0 * content["memory"]["growth"]
        lines.append(f"| growth of memory from the first 100,000 to {images:,} images | {growth:+.1f} % | <= 5 % |")
    machine = f"{content['machine']['cores']} cores of {content['machine']['cpu']}"
    return "\n".join(
        [
            *lines,
            "",
            f"`{content['command']}`, commit {content['commit'][:12]}, {machine}; `auto` took {content['picked']}; "
            f"medians and extremes of {content['rounds']} rounds.{_peer(content)}",
            *(
                ["", "![Memory over images](images/serving_memory.png)"]
                if "by_images" in content.get("memory", {})
                else []
            ),
        ]
    )


def _peer(content: Content) -> str:
    if "peer" not in content:
        return ""
    versions = content["peer"]
    return f" MLServer {versions['mlserver']} with ONNX Runtime {versions['onnxruntime']} in float32."


def plots(folder: Path, content: Content) -> None:
    """Draws throughput against batch size and concurrency, latency against concurrency, and memory."""
    _plot(folder / "serving_batch.png", content["by_batch"], "images", "images of a request", ("images_per_s",))
    _plot(
        folder / "serving_in_flight.png", content["by_in_flight"], "in_flight", "requests in flight", ("images_per_s",)
    )
    _plot(
        folder / "serving_latency.png",
        [row | row["latency_ms"] for row in content["by_in_flight"]],
        "in_flight",
        "requests in flight, one image each",
        ("p50", "p90", "p99"),
        "ms",
    )
    if "by_images" in content.get("memory", {}):
        _plot_memory(folder / "serving_memory.png", content["memory"]["by_images"])


def _plot_memory(file: Path, samples: list[tuple[int, int]]) -> None:
    """Draws (images answered, resident bytes) from zero on: what matters is whether it grows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([images / 1e6 for images, _ in samples], [size / 2**20 for _, size in samples])
    largest = max(size for _, size in samples) / 2**20
    axes.set(xlabel="million images answered", ylabel="resident memory, MiB", ylim=(0, 1.2 * largest))
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


def _plot(file: Path, rows: list[Row], x: str, title: str, columns: tuple[str, ...], unit: str = "images/s") -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for column in columns:
        axes.plot([row[x] for row in rows], [row[column] for row in rows], marker="o", label=column)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel(title)
    axes.set_ylabel(unit)
    axes.grid(which="both", alpha=0.3)
    if len(columns) > 1:
        axes.legend()
    figure.savefig(file, dpi=110)


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f}"


def _ratio(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _spread(values: list[float], unit: str) -> str:
    digits: Callable[[float], str] = (lambda v: f"{v:.1f}") if unit == "ms" else (lambda v: f"{v:.2f}")
    return f"{digits(statistics.median(values))} {unit} ({digits(min(values))} to {digits(max(values))})"
