"""The command line: `prelabel COMMAND`; each command is a file of `prelabel.commands`."""

import difflib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from prelabel import __version__
from prelabel.commands import (
    audit,
    backend,
    convert,
    duplicates,
    info,
    labels,
    plan,
    pull,
    push,
    report,
    run,
    select,
    sheet,
)
from prelabel.commands.exits import EXIT_ERROR, EXIT_INTERRUPTED, report_error
from prelabel.errors import PrelabelError
from prelabel.progress import JsonLines, write_end

DESCRIPTION = (
    "Turns a few labelled images and a large unlabelled pile into pre-labels that people only have to confirm."
)


@dataclass(frozen=True)
class Command:
    """A command of the command line."""

    name: str
    options: type
    """Dataclass of its options."""
    help: str
    """Its first line stands in the list of commands."""
    execute: Callable[[Any], int]
    """Does it and returns the exit status."""
    resumes: bool = False
    """Whether the same command again goes on where it was interrupted."""


COMMANDS = (
    Command("select", select.Select, select.HELP, select.execute),
    Command("labels", labels.Labels, labels.HELP, labels.execute),
    Command("plan", plan.Plan, plan.HELP, plan.execute),
    Command("duplicates", duplicates.Duplicates, duplicates.HELP, duplicates.execute),
    Command("run", run.Run, run.HELP, run.execute, resumes=True),
    Command("info", info.Info, info.HELP, info.execute),
    Command("sheet", sheet.Sheet, sheet.HELP, sheet.execute),
    Command("audit", audit.Audit, audit.HELP, audit.execute),
    Command("report", report.Report, report.HELP, report.execute),
    Command("convert", convert.Convert, convert.HELP, convert.execute),
    Command("push", push.Push, push.HELP, push.execute, resumes=True),
    Command("pull", pull.Pull, pull.HELP, pull.execute),
    Command("backend", backend.ServeBackend, backend.HELP, backend.execute),
)
"""In the order of their use."""


def overview() -> str:
    """Returns the list of commands, a line each."""
    lines = [f"  {command.name:<11} {command.help.splitlines()[0]}" for command in COMMANDS]
    more = "`prelabel COMMAND --help` says more, with examples; `prelabel --version` prints the version."
    return "\n".join(["usage: prelabel COMMAND ...", "", DESCRIPTION, "", *lines, "", more])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # A path that is not UTF-8 must not end a run in the line that says that it is done.
        sys.stdout.reconfigure(errors="backslashreplace")
    if words == ["--version"]:
        print(f"prelabel {__version__}")
        return 0
    if words in (["--help"], ["-h"]):
        print(overview())
        return 0
    if not words:
        print(overview(), file=sys.stderr)
        return EXIT_ERROR
    # gRPC's C core would repeat every failed try on stderr in its own words. It reads this when it is imported, later.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Pillow warns about small faults of images that it decodes all the same; those that it cannot become error rows.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    log = logging.StreamHandler(sys.stderr)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[log])
    as_json = False
    command = next((one for one in COMMANDS if one.name == words[0]), None)
    if command is None:
        near = difflib.get_close_matches(words[0], [one.name for one in COMMANDS], 1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        write_end("error", f"there is no command {words[0]!r}{meant}: `prelabel --help` lists them", as_json=False)
        return EXIT_ERROR
    try:
        options: Any = tyro.cli(
            command.options,
            prog=f"prelabel {command.name}",
            description=command.help,
            args=words[1:],
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        as_json = getattr(options, "progress", None) == "json"
        if as_json:
            log.setFormatter(JsonLines())
        return command.execute(options)
    except (PrelabelError, OSError) as error:
        return report_error(error, as_json=as_json)
    except KeyboardInterrupt:
        kept = "what is finished is kept, and the same command again goes on behind it"
        write_end("interrupted", kept if command.resumes else "the same command again starts over", as_json=as_json)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
