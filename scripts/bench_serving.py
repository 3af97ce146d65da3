"""Measures the server against its engine, the transport and other servers: `make bench-serving`.

Everything runs on this machine: servers, the engine alone and the load generator (scripts.bench_load) are processes of
their own, started once, that take turns for `rounds` rounds, so that what the machine does meanwhile hits all of them.
A ratio is that of neighbours in one round; medians and extremes are over the rounds. Nothing else may run. Results go
to docs/results/serving.json; `make docs` renders them.
"""

import contextlib
import functools
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from prelabel.bundle import load_bundle
from prelabel.client import PrelabelClient
from prelabel.errors import InputError
from prelabel.files import write_text_atomically
from scripts.bench_processes import BULK, Row, Running, engine, load, load_command, peer, reference, server
from scripts.provenance import provenance

COMMAND = "make bench-serving"
WITH_PEER = f"{COMMAND} ARGS='--peer-python PEER/bin/python'"

SINGLES_IN_FLIGHT = 64
"""Single images at the same time."""
CONNECTIONS = 8
"""Of as many clients, where several processes share the port: the kernel spreads connections, not calls."""
CURVE_BATCHES = (1, 4, 16, 64, 256, 1024)
CURVE_IN_FLIGHT = (1, 4, 16, 64, 256)


@dataclass(frozen=True)
class Options:
    """Measure the server; about fifteen minutes with a peer, and four more for the memory, on two free cores."""

    model: Path = Path("runs/demo/bundle")
    """The bundle that every server runs."""
    rounds: int = 5
    """Turns of each measurement."""
    seconds: float = 4.0
    """Length of a turn."""
    memory_images: int = 10_000_000
    """Images that the server answers while its memory is watched; 0: not measured."""
    starts: int = 7
    """Cold starts."""
    peer_python: Path | None = None
    """Python of an environment with `mlserver`, `onnxruntime` and `numpy`: MLServer is measured beside ours. None: it
    is left out. (python -m venv PEER && PEER/bin/pip install mlserver onnxruntime; then PEER/bin/python)"""
    results: Path = Path("docs/results/serving.json")
    """Where results go."""


def main() -> None:
    """Measures everything and writes the results."""
    options = tyro.cli(Options, prog="python -m scripts.bench_serving")
    if min(options.rounds, options.starts) < 1:
        raise InputError("--rounds and --starts must be 1 or more")
    bundle = load_bundle(options.model)
    content: dict[str, Any] = {
        **provenance(WITH_PEER if options.peer_python else COMMAND),
        "model": {"name": bundle.name, "input": bundle.input.shape, "classes": len(bundle.classes)},
        "rounds": options.rounds,
        "seconds": options.seconds,
    }
    content["cold_start_s"] = [cold_start(options.model) for _ in range(options.starts)]
    print(f"cold start: {statistics.median(content['cold_start_s']):.2f} s", flush=True)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(server(options.model))
        pinned = stack.enter_context(server(options.model, "--runtime", "onnxruntime", "--precision", "float32"))
        naive = stack.enter_context(reference("naive", options.model))
        empty = stack.enter_context(reference("empty", options.model))
        engines = {
            name: stack.enter_context(engine(options.model, options.seconds, *flags))
            for name, flags in (("auto", ()), ("onnxruntime", ("--runtime", "onnxruntime", "--precision", "float32")))
        }
        content["picked"] = picked(ours)
        turns = plan(options, ours, pinned, naive, empty, engines)
        two = stack.enter_context(server(options.model, "--processes", "2"))
        turns |= plan_processes(options, ours, two)
        turns |= plan_protocol(options, bundle.name, "", ours)
        turns |= plan_protocol(options, bundle.name, "-onnxruntime", pinned, clients=("load",))
        if options.peer_python is not None:
            other, content["peer"] = stack.enter_context(peer(options.peer_python, options.model, bundle.name))
            turns |= plan_protocol(options, bundle.name, "-peer", other)
        measured: dict[str, list[Row]] = {name: [] for name in turns}
        for number in range(options.rounds):
            for name, turn in turns.items():
                measured[name].append(turn())
                shown = {key: round(value) for key, value in measured[name][-1].items() if key.endswith("_per_s")}
                print(f"round {number + 1}, {name}: {shown}", flush=True)
        content["measured"] = measured
        content["by_batch"] = [
            load(ours, options.seconds / 2, kind="stream", images=images, in_flight=8, streams=2) | {"images": images}
            for images in CURVE_BATCHES
        ]
        content["by_in_flight"] = [
            load(ours, options.seconds / 2, in_flight=count) | {"in_flight": count} for count in CURVE_IN_FLIGHT
        ]
    if options.memory_images:
        content["memory"] = memory(options)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(options.results, json.dumps(content, indent=1) + "\n")


def picked(where: Running) -> str:
    """Returns what runs the model of our server."""
    with PrelabelClient(where.address) as client:
        return client.model().execution_provider


def plan(
    options: Options,
    ours: Running,
    pinned: Running,
    naive: Running,
    empty: Running,
    engines: dict[str, Callable[[], Row]],
) -> dict[str, Callable[[], Row]]:
    """Returns the measurements of a round by name, those that are compared beside each other."""

    def turn(where: Running, **what: Any) -> Callable[[], Row]:
        return lambda: load(where, options.seconds, **what)

    bulk = {"kind": "stream", "images": BULK, "in_flight": 8, "streams": 2}
    singles = {"in_flight": SINGLES_IN_FLIGHT}
    streams = {"kind": "stream", "in_flight": SINGLES_IN_FLIGHT, "streams": 4}
    return {
        "engine": engines["auto"],
        "bulk": turn(ours, **bulk),
        "engine-onnxruntime": engines["onnxruntime"],
        "bulk-onnxruntime": turn(pinned, **bulk),
        "bulk-naive": turn(naive, images=BULK, in_flight=16),
        "singles-empty": turn(empty, **singles),
        "singles": turn(ours, **singles),
        "singles-naive": turn(naive, **singles),
        "streams-empty": turn(empty, **streams),
        "streams": turn(ours, **streams),
        "streams-naive": turn(naive, **streams),
        "interactive-idle": turn(ours, in_flight=1),
        "interactive-beside-bulk": lambda: beside_bulk(ours, options.seconds),
    }


def plan_processes(options: Options, one: Running, two: Running) -> dict[str, Callable[[], Row]]:
    """Returns the measurements of one and of two processes on a port, under the same load over several connections."""
    singles = {"in_flight": SINGLES_IN_FLIGHT, "connections": CONNECTIONS}
    bulk = {"kind": "stream", "images": BULK, "in_flight": 8, "streams": CONNECTIONS, "connections": CONNECTIONS}
    return {
        "singles-connections": lambda: load(one, options.seconds, **singles),
        "singles-processes": lambda: load(two, options.seconds, **singles),
        "bulk-connections": lambda: load(one, options.seconds, **bulk),
        "bulk-processes": lambda: load(two, options.seconds, **bulk),
    }


def plan_protocol(
    options: Options, name: str, suffix: str, where: Running, clients: tuple[str, ...] = ("load", "triton")
) -> dict[str, Callable[[], Row]]:
    """Returns the measurements of a server by the Open Inference Protocol, with our load generator and Triton's."""
    loads = {
        "bulk-oip": {"images": BULK, "in_flight": 16, "model_name": name},
        "singles-oip": {"in_flight": SINGLES_IN_FLIGHT, "model_name": name},
    }
    turns: dict[str, Callable[[], Row]] = {}
    for title, what in loads.items():
        for client in clients:
            title_of_client = title if client == "load" else f"{title}-tritonclient"
            turns[title_of_client + suffix] = functools.partial(load, where, options.seconds, client, **what)
    return turns


def beside_bulk(where: Running, seconds: float) -> Row:
    """Returns what a person with one request at a time sees while two streams keep the server full of bulk work."""
    bulk = load_command(where, seconds + 2.0, kind="stream", images=BULK, in_flight=8, streams=2)
    with subprocess.Popen(bulk, stdout=subprocess.PIPE, text=True) as running:
        time.sleep(1.5)  # the load generator starts
        row = load(where, seconds, in_flight=1)
        answer, _ = running.communicate()
    bulk_row = json.loads(answer)
    # One bulk batch's time, as its sender sees it: two streams with eight in flight wait for each other.
    return row | {"bulk": bulk_row, "bulk_batch_ms": 1e3 * BULK / bulk_row["images_per_s"]}


def memory(options: Options) -> Row:
    """Returns a new server's resident memory over many images."""
    bulk = {"kind": "stream", "images": BULK, "in_flight": 8, "streams": 2}
    first = min(100_000, options.memory_images)
    with server(options.model, "--metrics-port", "0") as ours:
        load(ours, 0.0, **bulk, total_images=first)
        samples = [(ours.answered_images(), ours.resident_bytes())]
        command = load_command(ours, 0.0, **bulk, total_images=options.memory_images - first)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
            while running.poll() is None:
                time.sleep(1.0)
                samples.append((ours.answered_images(), ours.resident_bytes()))
    largest = max(size for _, size in samples[len(samples) // 2 :])
    return {"images": options.memory_images, "by_images": samples, "growth": largest / samples[0][1] - 1.0}


def cold_start(model: Path) -> float:
    """Returns the seconds from starting the command to the first moment in which it answers."""
    started = time.perf_counter()
    with server(model):
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
