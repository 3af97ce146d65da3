"""The server's options from three places: flags before environment before one TOML file; and back into such a file."""

import argparse
import dataclasses
import difflib
import json
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from prelabel.errors import InputError
from serving.config import Config

PREFIX = "PRELABEL_OPTION_"
"""Of environment variables. Not PRELABEL_ alone: Kubernetes makes PRELABEL_PORT for a service named prelabel."""

NAMES = tuple(field.name for field in dataclasses.fields(Config) if field.name not in ("config", "print_config"))
"""Options that a file or the environment may set."""


def read_config(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """Returns the options of a server; a flag goes before the environment, which goes before the file.

    Args:
        arguments: The command line without the program; default: this process's.
        environment: Default: this process's.

    Raises:
        InputError: The file cannot be read, or it or the environment sets an option that does not exist.
        SystemExit: A flag or a value is wrong; what is wrong was printed.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    environment = os.environ if environment is None else environment
    settings, _ = _settings(arguments, environment)
    flags = [flag for name, value in settings.items() for flag in _flags(name, value)]
    try:
        return tyro.cli(Config, prog="python -m serving", args=[*flags, *arguments])
    except SystemExit as end:
        if end.code and settings:
            print(f"set by the environment or by --config: {' '.join(flags)}", file=sys.stderr)
        raise


def to_toml(
    config: Config, arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Returns the options as a file for `--config`, each with where it comes from; what has no value is left out."""
    arguments = sys.argv[1:] if arguments is None else arguments
    environment = os.environ if environment is None else environment
    settings, origins = _settings(arguments, environment)
    lines = []
    for name in NAMES:
        value = getattr(config, name)
        if value is None:
            continue
        origin = origins[name] if name in settings else "command line" if _is_given(name, arguments) else "default"
        lines.append(f"{name} = {_toml_value(value)}  # {origin}")
    return "\n".join(lines) + "\n"


def to_flags(config: Config) -> list[str]:
    """Returns the command line that makes these options, whatever the environment and files say."""
    options = {field.name: field.default for field in dataclasses.fields(Config)}
    values = {name: getattr(config, name) for name in NAMES}
    return [flag for name, value in values.items() if value != options[name] for flag in _flags(name, value)]


def from_flags(flags: Sequence[str]) -> Config:
    """Returns the options of such a command line."""
    return tyro.cli(Config, prog="python -m serving", args=flags)


def _settings(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns what file and environment set that no flag sets, and the place of each."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", default=environment.get(f"{PREFIX}CONFIG"))
    file = parser.parse_known_args(arguments)[0].config
    settings: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if file is not None:
        for name, value in _read_toml(Path(file)).items():
            _check_name(name, f"--config {file}")
            settings[name], origins[name] = value, file
    for variable, text in environment.items():
        if variable.startswith(PREFIX) and variable != f"{PREFIX}CONFIG":
            name = variable.removeprefix(PREFIX).lower()
            _check_name(name, variable)
            settings[name], origins[name] = text, variable
    return {name: value for name, value in settings.items() if not _is_given(name, arguments)}, origins


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise InputError(f"--config {file} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise InputError(f"--config {file} is no TOML file: {error}") from None


def _check_name(name: str, place: str) -> None:
    if name not in NAMES:
        close = difflib.get_close_matches(name, NAMES, 1)
        meant = f"did you mean {close[0]}?" if close else f"the options are {', '.join(NAMES)}"
        raise InputError(f"{place} sets {name}, which is no option of the server: {meant}")


def _is_given(name: str, arguments: Sequence[str]) -> bool:
    dashed = name.replace("_", "-")
    flags = {f"--{dashed}", f"--no-{dashed}"}
    return any(argument.partition("=")[0].replace("_", "-") in flags for argument in arguments)


def _flags(name: str, value: Any) -> list[str]:
    dashed = name.replace("_", "-")
    # The environment has no types: there, true and false are words.
    switches = {field.name for field in dataclasses.fields(Config) if isinstance(field.default, bool)}
    if name in switches and str(value).lower() in ("true", "false", "1", "0"):
        return [f"--{dashed}" if str(value).lower() in ("true", "1") else f"--no-{dashed}"]
    if isinstance(value, list):
        return [f"--{dashed}", *map(str, value)]
    # In one word: a value may begin with a dash.
    return [f"--{dashed}={value}"]


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    # TOML's basic strings have JSON's escapes, and want one for DEL, too.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
