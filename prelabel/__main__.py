"""The command line: `prelabel COMMAND`; each command is a file of `prelabel.commands`."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

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
from prelabel.commands.exits import EXIT_ERROR, EXIT_INTERRUPTED
from prelabel.errors import PrelabelError

DESCRIPTION = (
    "Turns a few labelled images and a large unlabelled pile into pre-labels that people only have to confirm."
)
EPILOG = "`prelabel --version` prints the version. `prelabel COMMAND --help` says more."

Command = (
    Annotated[run.Run, tyro.conf.subcommand("run", description=run.HELP)]
    | Annotated[info.Info, tyro.conf.subcommand("info", description=info.HELP)]
    | Annotated[sheet.Sheet, tyro.conf.subcommand("sheet", description=sheet.HELP)]
    | Annotated[audit.Audit, tyro.conf.subcommand("audit", description=audit.HELP)]
    | Annotated[convert.Convert, tyro.conf.subcommand("convert", description=convert.HELP)]
    | Annotated[plan.Plan, tyro.conf.subcommand("plan", description=plan.HELP)]
    | Annotated[duplicates.Duplicates, tyro.conf.subcommand("duplicates", description=duplicates.HELP)]
    | Annotated[report.Report, tyro.conf.subcommand("report", description=report.HELP)]
    | Annotated[push.Push, tyro.conf.subcommand("push", description=push.HELP)]
    | Annotated[pull.Pull, tyro.conf.subcommand("pull", description=pull.HELP)]
    | Annotated[backend.ServeBackend, tyro.conf.subcommand("backend", description=backend.HELP)]
    | Annotated[select.Select, tyro.conf.subcommand("select", description=select.HELP)]
    | Annotated[labels.Labels, tyro.conf.subcommand("labels", description=labels.HELP)]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words == ["--version"]:
        print(f"prelabel {__version__}")
        return 0
    # gRPC's C core would repeat every failed try on stderr in its own words. It reads this when it is imported, later.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Pillow warns about small faults of images that it decodes all the same; those that it cannot become error rows.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        command = tyro.cli(
            Command,
            prog="prelabel",
            description=f"{DESCRIPTION}\n\n{EPILOG}",
            args=words,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        match command:
            case run.Run():
                return run.execute(command)
            case info.Info():
                return info.execute(command)
            case sheet.Sheet():
                return sheet.execute(command)
            case audit.Audit():
                return audit.execute(command)
            case convert.Convert():
                return convert.execute(command)
            case plan.Plan():
                return plan.execute(command)
            case duplicates.Duplicates():
                return duplicates.execute(command)
            case report.Report():
                return report.execute(command)
            case push.Push():
                return push.execute(command)
            case pull.Pull():
                return pull.execute(command)
            case backend.ServeBackend():
                return backend.execute(command)
            case select.Select():
                return select.execute(command)
            case labels.Labels():
                return labels.execute(command)
    except PrelabelError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("interrupted; finished files are kept, and the same command again goes on behind them", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:  # a full disk, a directory without permission: the user's to mend, no bug of ours
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_ERROR


if __name__ == "__main__":
    sys.exit(main())
