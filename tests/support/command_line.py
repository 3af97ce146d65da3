"""The command line as a user types it, in this process."""

from pathlib import Path

import pytest

from prelabel import __main__ as cli


def run(*arguments: object) -> int:
    """Runs `prelabel`; returns its exit status."""
    return cli.main([str(one) for one in arguments])


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns what a command said that failed: one line."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return line


def bulk(pile: Path, bundle: Path, *more: object) -> int:
    """Runs `prelabel run` with a bundle, into the folder `out` beside the pile; returns its exit status."""
    options = ("--device", "cpu", "--threads", 1, "--progress", "none", "--shard-size", 4)
    return run("run", "--input", pile, "--model", bundle, "--output", pile.parent / "out", *options, *more)
