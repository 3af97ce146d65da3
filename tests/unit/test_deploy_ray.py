"""The job for Kubernetes fits the command line and itself."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from prelabel import __main__ as cli
from prelabel.commands import run

JOB = Path(__file__).parents[2] / "deploy/ray/rayjob.yaml"


@pytest.fixture
def spec() -> Any:
    return yaml.safe_load(JOB.read_text())["spec"]


def test_its_command_is_one(spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shell, flag, script = shlex.split(spec["entrypoint"])
    command, status = script.split(" || ")
    program, *arguments = shlex.split(command)
    assert (shell, flag, program, status) == ("sh", "-c", "prelabel", "[ $? -eq 3 ]")
    taken: list[run.Run] = []

    def execute(options: run.Run) -> int:
        taken.append(options)
        return 0

    commands = [dataclasses.replace(one, execute=execute) if one.name == "run" else one for one in cli.COMMANDS]
    monkeypatch.setattr(cli, "COMMANDS", commands)
    assert cli.main(arguments) == 0
    assert (taken[0].runner, taken[0].cluster.address) == ("ray", None)


def test_every_node_has_the_image_and_sees_what_the_command_names(spec: Any) -> None:
    cluster = spec["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
        assert (container["image"], mount["name"], mount["mountPath"]) == ("prelabel-ray", volume["name"], "/shared")
        assert all(word.startswith("/shared/") for word in spec["entrypoint"].split() if word.startswith("/"))
