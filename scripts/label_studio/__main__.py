"""The whole round in a real Label Studio, by prelabel's own commands; writes docs/results/label_studio.json.

A small model is trained -> 10,000 MNIST images are pre-labelled, pushed, pushed again and pushed by a new model -> the
backend is attached and asked -> 300 images are annotated by the API -> pulled -> training takes what was pulled. What
is not as it must be ends the script with an error. Usage: python -m scripts.label_studio [--record]
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prelabel.adapters.pictures import image_file
from prelabel.files import write_text_atomically
from prelabel.sources import IdxSource
from prelabel.table import read_predictions
from scripts.label_studio import studio as label_studio
from scripts.label_studio.studio import Studio
from scripts.provenance import provenance

IMAGES = Path("data/mnist/train-images-idx3-ubyte.gz")
FOLDER = Path("runs/label-studio")
OUTPUT = Path("docs/results/label_studio.json")
PUSHED = 10_000
ASKED = 500
"""Tasks in the project that the backend answers, half of them from stored predictions."""
ANNOTATED = 300
STEPS = ("--steps", "60", "--labels", "100", "--progress", "none")
PORTS = (18080, 19090, 15051)
"""Of Label Studio, the backend, and the prelabel server."""

figures: dict[str, Any] = {}


def must(condition: bool, text: str) -> None:
    """Ends the script where something is not as it must be."""
    if not condition:
        sys.exit(f"FAILED: {text}")
    print(f"ok: {text}", flush=True)


def command(name: str, *arguments: object, **environment: str) -> str:
    """Runs a command, notes its seconds as `name` unless that is empty, and returns what it prints."""
    started_s = time.monotonic()
    line = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    if done.returncode:
        sys.exit(f"FAILED: {' '.join(line)} ended with status {done.returncode}")
    if name:
        figures[f"{name}_s"] = round(time.monotonic() - started_s, 1)
    print(done.stdout, end="", flush=True)
    return done.stdout


@contextlib.contextmanager
def process(*arguments: object, until: str, **environment: str) -> Iterator[None]:
    """Runs a server until the block ends; it is up when it has printed `until`."""
    line = [sys.executable, "-m", *map(str, arguments)]
    variables = {**os.environ, **environment}
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables) as running:
        assert running.stdout is not None
        said = []
        for text in running.stdout:
            said.append(text)
            if until in text:
                break
        must(running.poll() is None, f"{arguments[0]} runs: {said[-1].strip()}")
        try:
            yield
        finally:
            running.send_signal(signal.SIGTERM)
            running.communicate()


def make_predictions(folder: Path, seed: int, count: int) -> tuple[Path, Path]:
    """Trains a small model and pre-labels `count` images; returns its bundle and the predictions."""
    run, output = folder / f"run{seed}", folder / f"predictions{seed}"
    command("", "training", "--data", "data/mnist", *STEPS, "--seed", seed, "--output", run)
    command("", "export", "--run", run)
    arguments = ("--input", IMAGES, "--model", run / "bundle", "--limit", count, "--output", output)
    command("", "prelabel", "run", *arguments, "--progress", "none")
    return run / "bundle", output


def check_project(studio: Studio, project: int, versions: dict[str, int]) -> None:
    """Every image has one task, and every task one prediction of each of these models."""
    uids: Counter[str] = Counter()
    made: Counter[str] = Counter()
    for page in range(1, PUSHED // 1000 + 1):
        for task in studio.tasks(project, 1000, page, "all")["tasks"]:
            uids[task["data"]["uid"]] += 1
            of_task = Counter(one["model_version"] for one in task["predictions"])
            if max(of_task.values(), default=0) > 1:
                sys.exit(f"FAILED: task {task['id']} has several predictions of one model")
            made += of_task
    must(len(uids) == PUSHED == uids.total(), f"{PUSHED:,} images have one task each")
    must(dict(made) == versions, f"predictions: {versions}")


def check_backend(studio: Studio, bundle: Path, predictions: Path, served: Path) -> None:
    """Half of the tasks have stored predictions, the others go to a server; one image is broken."""
    model = read_predictions(predictions, ["model_id"])["model_id"][0].as_py()
    (served / "set").mkdir(parents=True)
    for sample in IdxSource(IMAGES).read(PUSHED, PUSHED + ASKED // 2):
        (served / "set" / f"{sample.id}.png").write_bytes(image_file(sample)[0])
    paths = sorted((served / "set").iterdir())
    broken = paths[3]
    broken.write_bytes(b"broken")
    project = studio.make_project("asked", [str(k) for k in range(10)])
    tasks = [{"data": {"image": f"/data/local-files/?d=set/{path.name}"}} for path in paths]
    tasks += [{"data": {"image": "data:,", "uid": f"{i:06d}"}} for i in range(ASKED - len(tasks))]
    studio.call("POST", f"/api/projects/{project}/import", tasks)
    server = ("serving", "--model", bundle, "--port", PORTS[2], "--device", "cpu")
    backend = ("prelabel", "backend", "label-studio", "--predictions", predictions, "--server", f"127.0.0.1:{PORTS[2]}")
    options = ("--port", PORTS[1], "--local-files", served)
    with (
        process(*server, until='"message": "serving"'),
        process(*backend, *options, until="answering", PRELABEL_BACKEND_AUTH="ls:secret"),
    ):
        auth = {"auth_method": "BASIC_AUTH", "basic_auth_user": "ls", "basic_auth_pass": "secret"}
        body = {"project": project, "url": f"http://127.0.0.1:{PORTS[1]}", "title": "prelabel", **auth}
        attached = studio.call("POST", "/api/ml/", body)
        must(attached["model_version"] == model, f"the backend is attached as model {model}")
        everything = {"selectedItems": {"all": True, "excluded": []}}
        started_s = time.monotonic()
        studio.call("POST", f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}", everything)
        figures["backend_retrieve_s"] = round(time.monotonic() - started_s, 1)
        studio.call("POST", f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}", everything)
    listed = studio.tasks(project, ASKED, fields="all")["tasks"]
    must(all(len(task["predictions"]) == 1 for task in listed), f"each of {ASKED} tasks has one result, asked twice")
    empty = [task for task in listed if not task["predictions"][0]["result"]]
    must([broken.name in task["data"]["image"] for task in empty] == [True], "the broken image alone has an empty one")
    figures["backend_tasks"] = ASKED


def annotate(studio: Studio, project: int) -> None:
    """A person names 300 images (with the right digit), skips some, and says `none` to some."""
    labels = IdxSource(IMAGES).labels
    assert labels is not None
    started_s = time.monotonic()
    for i, task in enumerate(studio.tasks(project, ANNOTATED)["tasks"]):
        right = str(labels[int(task["data"]["uid"])])
        studio.annotate(task["id"], "none" if i % 50 == 7 else right, skipped=i % 50 == 8)
    figures["annotate_s"] = round(time.monotonic() - started_s, 1)


def main() -> None:
    """Does the round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help=f"write the figures to {OUTPUT}")
    record = parser.parse_args().record
    label_studio.install()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    served = FOLDER / "served"
    served.mkdir()
    first_bundle, first = make_predictions(FOLDER, 0, PUSHED)
    _, second = make_predictions(FOLDER, 1, PUSHED)
    model_ids = [read_predictions(one, ["model_id"])["model_id"][0].as_py() for one in (first, second)]
    started_s = time.monotonic()
    with label_studio.run(FOLDER / "data", served, PORTS[0]) as studio:
        figures["start_s"] = round(time.monotonic() - started_s, 1)
        project = studio.make_project("digits", [str(k) for k in range(10)])
        place = ("--url", studio.url, "--project", project)
        token = {"LABEL_STUDIO_API_KEY": studio.personal_token()}
        push = ("prelabel", "push", "label-studio", *place, "--images", IMAGES, "--progress", "none", "--predictions")
        command("push", *push, first, **token)
        check_project(studio, project, {model_ids[0]: PUSHED})
        command("push_again", *push, first, **token)
        check_project(studio, project, {model_ids[0]: PUSHED})
        command("push_new_model", *push, second, LABEL_STUDIO_API_KEY=studio.legacy_token)
        check_project(studio, project, dict.fromkeys(model_ids, PUSHED))
        check_backend(studio, first_bundle, first, served)
        annotate(studio, project)
        pull = ("prelabel", "pull", "label-studio", *place, "--images", IMAGES, "--output", FOLDER / "round2")
        told = command("pull", *pull, **token)
    must(f"{ANNOTATED - 6} answers" in told, "the answers are all there, without the skipped ones")
    must("60,000 images" in told and f"{ANNOTATED - 12} labelled" in told, "`none` is an answer and no label")
    steps = ("--steps", "60", "--progress", "none")
    command("retrain", "training", "--data", FOLDER / "round2", *steps, "--output", FOLDER / "run2")
    summary = json.loads((FOLDER / "run2/training.json").read_text())
    must(summary["labels"] == ANNOTATED - 12, f"training took the {ANNOTATED - 12} labels")
    if record:
        # Other work on the machine makes all of it slower.
        load = f"load average {os.getloadavg()[0]:.0f} at the end"
        versions = {"label-studio": label_studio.VERSION, "python": platform.python_version()}
        counts = {"pushed": PUSHED, "annotated": ANNOTATED, "answers": ANNOTATED - 6, "note": load}
        report = provenance("make test-label-studio ARGS=--record") | {"versions": versions, **counts, **figures}
        write_text_atomically(OUTPUT, json.dumps(report, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
