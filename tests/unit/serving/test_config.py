import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from prelabel.errors import InputError
from serving.__main__ import main
from serving.config import Config


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The command sets the process's log handler."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("instances", -1),
        ("drain_timeout_s", -1.0),
        ("drain_timeout_s", float("inf")),
        ("reload_every_s", -1.0),
        ("max_message_mib", 1),
        ("max_message_mib", 1025),
        ("max_image_pixels", 0),
        ("max_image_pixels", 64_000_001),
        ("max_connections", 0),
        ("processes", 0),
    ],
)
def test_options_that_make_no_sense_are_refused(option: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{option} is {value}"):
        Config(model=Path("bundle"), **{option: value})


def test_the_command_prints_one_line_and_exits_with_2(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, text in [
        (["--model", str(tiny_bundle), "--port", "70000"], "port is 70000"),
        (["--model", str(tmp_path)], "holds no model bundle"),
        (["--model", str(tiny_bundle), "--port-file", str(tmp_path / "missing" / "port")], "there is no folder"),
        (
            ["--model", str(tiny_bundle), "--port", "0", "--device", "cpu", "--max-batch-size", "0"],
            "max_batch_size is 0",
        ),
    ]:
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert text in line


def test_a_stale_port_file_is_removed_before_anything_can_fail(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    port_file.write_text("50051\n")
    assert main(["--model", str(tmp_path / "none"), "--port-file", str(port_file)]) == 2
    assert not port_file.exists()


@pytest.mark.parametrize("gpus", ["", "every", "0,", "-1", "0,0", "0, 1"])
def test_gpus_that_make_no_sense_are_refused(gpus: str) -> None:
    with pytest.raises(InputError, match="gpus is"):
        Config(Path("bundle"), gpus=gpus)
