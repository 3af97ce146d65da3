"""A plan as lines for people."""

from prelabel.planning.plan import ModelFacts, OutputFacts, Plan
from prelabel.planning.sample import SampleFacts

SHOWN = 5
"""Sizes, labels, unreadable images that are named; `--json` has them all."""
WIDTH = 12
"""Of the first column."""


def to_text(plan: Plan) -> str:
    """Returns the plan as aligned lines."""
    sample = plan.sample
    seen = "all of them" if sample.images == plan.images else f"{sample.images:,} at random"
    lines = [
        ("input", f"{plan.input}: {plan.kind}, {plan.images:,} images, about {size(plan.bytes_estimated)}"),
        ("looked at", f"{seen}, {size(round(sample.bytes_per_image))} each"),
        ("sizes", _shares(sample.sizes_px, unit=" px")),
        ("pixels", _shares(sample.modes)),
        ("labels", _shares(sample.labels) if sample.labels else "none"),
        ("unreadable", _unreadable(plan)),
        *(("", f"{one.id}: {one.error}") for one in sample.unreadable[:SHOWN]),
    ]
    if len(sample.unreadable) > SHOWN:
        lines.append(("", f"and {len(sample.unreadable) - SHOWN:,} more (--json names them all)"))
    lines.append(("duplicates", _duplicates(plan)))
    if plan.model is None:
        lines.append(("model", "none given"))
    else:
        lines += _model(plan.model)
    if plan.output is not None:
        lines += _output(plan.output)
    lines += [*_time(plan), ("next", plan.next_command)]
    return "\n".join(f"{name:<{WIDTH}} {value}" for name, value in lines)


def size(count_bytes: int) -> str:
    """Returns a number of bytes with its unit."""
    amount = float(count_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 999.5:  # more would be shown as 1e+03
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:,.3g} TB"


def duration(seconds: float) -> str:
    """Returns seconds, minutes or hours with their unit."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _shares(counts: dict[str, int], unit: str = "") -> str:
    total = sum(counts.values())
    parts = [f"{name}{unit} {100 * count / total:.3g} %" for name, count in list(counts.items())[:SHOWN]]
    rest = len(counts) - SHOWN
    return ", ".join(parts) + (f", and {rest:,} more" if rest > 0 else "") if parts else "none can be read"


def _unreadable(plan: Plan) -> str:
    sample: SampleFacts = plan.sample
    found = f"{len(sample.unreadable):,} of {sample.images:,}"
    if sample.images == plan.images:
        return found
    return (
        f"{found}; in all {sample.unreadable_at_least:,} to {sample.unreadable_at_most:,} of {plan.images:,} "
        "(95 % confidence)"
    )


def _duplicates(plan: Plan) -> str:
    counts = plan.duplicates
    if counts is None:
        return "not looked for (--duplicates)"
    share = (counts.exact + counts.near) / max(counts.images, 1)
    found = f"{counts.exact:,} exact, {counts.near:,} near: {100 * share:.3g} % of {counts.images:,} images"
    if counts.all:
        return found
    return f"{found} of a sample; more in the whole, as copies lie outside of the sample (--duplicates all)"


def _model(model: ModelFacts) -> list[tuple[str, str]]:
    height, width, channels = model.input_shape
    names = ", ".join(model.classes[: 4 * SHOWN]) + (", ..." if len(model.classes) > 4 * SHOWN else "")
    lines = [
        ("model", f"{model.model_id}, {width} x {height} px, {'grey' if channels == 1 else 'RGB'}"),
        ("classes", f"{len(model.classes)}: {names}"),
    ]
    if model.unknown_labels:
        unknown = ", ".join(model.unknown_labels[:SHOWN]) + (", ..." if len(model.unknown_labels) > SHOWN else "")
        lines.append(("", f"{len(model.unknown_labels)} labels of the input are no classes of the model: {unknown}"))
    return lines


def _output(output: OutputFacts) -> list[tuple[str, str]]:
    written = "" if output.bytes_to_write is None else f", about {size(output.bytes_to_write)} to write"
    lines = [
        (
            "output",
            f"{output.path}: {output.shards:,} files of {output.shard_size:,} images, {output.shards_done:,} done, "
            f"{output.images_to_do:,} images to do{written}",
        )
    ]
    if output.obstacle is not None:
        lines.append(("", f"cannot be used: {output.obstacle}"))
    return lines


def _time(plan: Plan) -> list[tuple[str, str]]:
    needed, speed = plan.time, plan.speed
    stages = [
        ("reading", needed.read_s, speed.read_per_s),
        ("decoding", needed.decode_s, speed.decode_per_s),
        ("inference", needed.inference_s, speed.inference_per_s),
        ("writing", needed.write_s, speed.write_per_s),
        ("end to end", needed.end_to_end_s, speed.end_to_end_per_s),
    ]
    lines = [
        f"{name:<{WIDTH}} {duration(seconds):>8}  {per_s:>9,.0f} images/s"
        for name, seconds, per_s in stages
        if seconds is not None and per_s is not None
    ]
    first = f"on {needed.cores} cores, each stage alone and all together:"
    return [("time", first), *(("", line) for line in lines)]
