"""What can be said about the images without an engine: that the Dockerfile fits the checkout that it copies."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from serving.settings import read_config

ROOT = Path(__file__).parents[2]
TRAINING_STACK = {"tensorflow", "keras", "tf2onnx", "onnx", "jax", "torch"}


def read_stages() -> dict[str, list[tuple[str, str]]]:
    """Stage name -> its (instruction, arguments); the FROM line of a stage is its first instruction."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    stages: dict[str, list[tuple[str, str]]] = {"": []}
    stage = ""
    for line in filter(None, text.splitlines()):
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            stage = arguments.split(" AS ")[1]
            stages[stage] = []
        stages[stage].append((instruction, arguments.strip()))
    return stages


def argument(stage: str, instruction: str) -> str:
    (arguments,) = [text for name, text in read_stages()[stage] if name == instruction]
    return arguments


def copied(stage: str) -> list[str]:
    """What a stage copies from the checkout."""
    defaults = dict(text.split("=", 1) for name, text in read_stages()[stage] if name == "ARG")
    copies = [text for name, text in read_stages()[stage] if name == "COPY" and not text.startswith("--from=")]
    return [re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], text.split()[0]) for text in copies]


@pytest.mark.parametrize("stage", ["serve-build", "train-build"])
def test_what_is_copied_exists_and_is_not_ignored(stage: str) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied(stage)
    for source in copied(stage):
        assert (ROOT / source).exists()
        assert source.split("/")[0] in allowed


def test_every_package_of_the_checkout_is_in_the_images_that_need_it() -> None:
    assert {"prelabel", "serving"} == {source for source in copied("serve-build") if "/" not in source}
    assert {"prelabel", "training", "export"} == {source for source in copied("train-build") if "/" not in source}


@pytest.mark.parametrize("lock", ["locks/serve.txt", "locks/serve-cpu.txt"])
def test_server_locks_hold_one_onnx_runtime_and_no_training_stack(lock: str) -> None:
    names = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / lock).read_text(), flags=re.MULTILINE))
    assert not names & TRAINING_STACK
    assert len(names & {"onnxruntime", "onnxruntime-gpu"}) == 1


@pytest.mark.parametrize("stage", ["serve", "train"])
def test_images_run_unprivileged_and_get_signals(stage: str) -> None:
    user, group = argument(stage, "USER").split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert argument(stage, "STOPSIGNAL") == "SIGTERM"
    # The shell form would put a shell before Python, and SIGTERM would end the shell.
    assert json.loads(argument(stage, "ENTRYPOINT"))[:2] == ["python", "-m"]


def test_server_knows_the_options_of_its_entrypoint_and_environment() -> None:
    command = json.loads(argument("serve", "ENTRYPOINT")) + json.loads(argument("serve", "CMD"))
    assert_options_exist(command)
    words = " ".join(text for name, text in read_stages()["serve"] if name == "ENV").split()
    options = dict(word.split("=", 1) for word in words if word.startswith("PRELABEL_OPTION_"))
    # Not arguments of the entry point, which nothing but further arguments could change.
    config = read_config([], options)
    assert (config.model, config.host, config.port) == (Path("/model"), "0.0.0.0", 50051)
    assert read_config(["--port", "7000"], {**options, "PRELABEL_OPTION_HOST": "::"}).port == 7000


def test_health_check_knows_the_options_it_is_given() -> None:
    command = json.loads(argument("serve", "HEALTHCHECK").partition("CMD")[2])
    assert_options_exist(command)
    asked = subprocess.run(
        [sys.executable, *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PRELABEL_OPTION_PORT": "1"},
    )  # fmt: skip
    assert asked.stdout.startswith("127.0.0.1:1: no answer"), "the port that the server was given"


def assert_options_exist(command: list[str]) -> None:
    shown = subprocess.run(
        [sys.executable, *command[1:3], "--help"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    ).stdout
    options = [word for word in command if word.startswith("--")]
    assert options
    for option in options:
        assert re.search(rf"{option}\b", shown), f"{option} is not in the help of {command[2]}"
