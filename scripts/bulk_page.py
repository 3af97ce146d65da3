"""docs/bulk.md's tables of `make bench-bulk`, from docs/results/bulk.json."""

import statistics
from typing import Any

from scripts.bench_bulk import SHARD_SIZES

Row = dict[str, Any]
Content = dict[str, Any]

MIB = 1 << 20
GPUS, CORES = 8, 128
ASSUMED_GPU_IMAGES_PER_S = 500_000
"""Inference of one GPU: assumed, not measured; about four times the two CPU cores of docs/serving.md."""
ASSUMED_READ_BYTES_PER_S = 2e9
"""What a machine reads from its disks or an object store: assumed."""
BILLION = 1_000_000_000


def speed(content: Content) -> str:
    """Returns images/s end to end beside its parts."""
    lines = [
        "| images/s, medians | decode alone | inference alone | end to end | of the slower | of what the cores allow |",
        "|---|---|---|---|---|---|",
    ]
    for name, pile in content["piles"].items():
        for title, infer, whole in (("", "infer", "embedded"), (", gRPC", "infer-served", "served")):
            rows = pile["measured"]
            decoding, inference, end = (speeds(rows[key]) for key in ("decode", infer, whole))
            parts = list(zip(end, decoding, inference, strict=True))
            slower = [mine / min(one, other) for mine, one, other in parts]
            cores = [mine * (1 / one + 1 / other) for mine, one, other in parts]
            figures = " | ".join(f"{statistics.median(values):,.0f}" for values in (decoding, inference, end))
            lines.append(f"| {name}{title} | {figures} | {spread(slower)} | {spread(cores)} |")
    machine = f"{content['machine']['cores']} cores of {content['machine']['cpu']}"
    return "\n".join(
        [
            *lines,
            "",
            "Decoding and inference alone both keep all cores busy. Where they share them, end to end can be no faster",
            "than 1 / (1 / decode + 1 / inference): 100 % in the last column. On a GPU the aim is 90 % of the slower.",
            "",
            f"`{content['command']}`, commit {content['commit'][:12]}, {machine}; {content['images']:,} images each, "
            f"medians and extremes of {content['rounds']} rounds.",
        ]
    )


def growth(content: Content) -> str:
    """Returns speed and memory against the number of images, and the cost of a shard."""
    lines = ["| images (Parquet, 28 x 28 PNG) | images/s | largest resident memory, all processes |", "|---|---|---|"]
    for row in content["growth"]:
        largest = max(size for _, size in row["resident_bytes"])
        lines.append(f"| {row['images']:,} | {row['images_per_s']:,.0f} | {largest / MIB:,.0f} MiB |")
    last = content["growth"][-1]
    return "\n".join(
        [
            *lines,
            "",
            f"A shard costs {1e3 * shard_s(content):.1f} ms beside its images (files of {SHARD_SIZES[0]} against "
            f"{SHARD_SIZES[1]:,} images); the output takes {last['files_bytes'] / last['images']:.0f} bytes an image.",
        ]
    )


def cluster(content: Content) -> str:
    """Returns images/s of Ray actors beside a run without Ray, and what a shard costs under both."""
    local = speeds(content["by_actors"]["0"])
    lines = ["| | images/s | of the run without Ray | first shard after |", "|---|---|---|---|"]
    for actors, rows in content["by_actors"].items():
        found = speeds(rows)
        ratios = [mine / one for mine, one in zip(found, local, strict=True)]
        title = f"{actors} actor{'s' if actors != '1' else ''}" if actors != "0" else "without Ray, all cores"
        first_s = statistics.median(row["first_shard_s"] for row in rows)
        lines.append(f"| {title} | {statistics.median(found):,.0f} | {spread(ratios)} | {first_s:.1f} s |")
    per_shard_ms = [1e3 * shard_s(content, name) for name in ("one_actor_by_shard_size", "by_shard_size")]
    return "\n".join(
        [
            *lines,
            "",
            f"{content['images']:,} images (Parquet, 28 x 28 PNG) from the first finished shard to the last, on one "
            f"machine with {content['machine']['cores']} cores as the cluster.",
            f"Beside its images, a shard costs one actor {per_shard_ms[0]:.1f} ms, and a run without Ray "
            f"{per_shard_ms[1]:.1f} ms.",
        ]
    )


def on_paper(content: Content) -> str:
    """Returns what a billion images take on eight GPUs, by these figures and assumptions that it names."""
    cores = content["machine"]["cores"]
    rows = content["piles"]["PNG folder"]
    decode_per_core = statistics.median(speeds(rows["measured"]["decode"])) / cores
    last = content["growth"][-1]
    needs_s = {
        f"decoding on {CORES} cores": BILLION / (decode_per_core * CORES),
        f"inference on {GPUS} GPUs": BILLION / (ASSUMED_GPU_IMAGES_PER_S * GPUS),
        f"reading {BILLION * rows['image_bytes'] / 1e9:,.0f} GB": (
            BILLION * rows["image_bytes"] / ASSUMED_READ_BYTES_PER_S
        ),
        f"writing {BILLION // SHARD_SIZES[1] + 1:,} shards by {GPUS} actors": (
            (BILLION / SHARD_SIZES[1]) * shard_s(content) / GPUS
        ),
    }
    slowest = max(needs_s, key=lambda name: needs_s[name])
    listed = ", ".join(f"{name} {seconds / 60:,.0f} min" for name, seconds in needs_s.items())
    wanted_cores = ASSUMED_GPU_IMAGES_PER_S / decode_per_core
    return (
        f"One billion 28 x 28 PNG files on a machine with {GPUS} GPUs, on paper. Measured: "
        f"{decode_per_core:,.0f} images/s of reading and decoding on a core, {rows['image_bytes']:,.0f} bytes a file, "
        f"{1e3 * shard_s(content):.1f} ms a shard, {last['files_bytes'] / last['images']:.0f} bytes of output an "
        f"image. Assumed: {ASSUMED_GPU_IMAGES_PER_S:,} images/s of inference on a GPU, {CORES} cores as fast as "
        f"these, {ASSUMED_READ_BYTES_PER_S / 1e9:.0f} GB/s of reading. By these, {listed}. They overlap, so the "
        f"whole takes about as long as the slowest of them, {slowest}: {needs_s[slowest] / 60:,.0f} minutes. One GPU "
        f"is kept busy by {wanted_cores:,.0f} cores that decode; what has fewer waits for decoding first. Output: "
        f"{BILLION * last['files_bytes'] / last['images'] / 1e9:,.0f} GB."
    )


def shard_s(content: Content, measurement: str = "by_shard_size") -> float:
    """Returns the seconds that a shard costs beside its images: median over the rounds, not below 0."""
    few, many = (content[measurement][str(size)] for size in reversed(SHARD_SIZES))
    return max(
        0.0,
        statistics.median(
            (slow["seconds"] - fast["seconds"]) / (slow["shards"] - fast["shards"])
            for fast, slow in zip(few, many, strict=True)
        ),
    )


def speeds(rows: list[Row]) -> list[float]:
    """Returns images/s of each round."""
    return [row["images_per_s"] for row in rows]


def spread(ratios: list[float]) -> str:
    """Returns the median and the extremes in percent."""
    return f"{statistics.median(ratios):.0%} ({min(ratios):.0%} to {max(ratios):.0%})"
