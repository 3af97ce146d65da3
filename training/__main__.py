"""The command `python -m training`."""

import dataclasses
import logging
import os
import sys
from pathlib import Path

import tyro

from prelabel.commands.exits import EXIT_INTERRUPTED, report_error
from prelabel.errors import PrelabelError
from prelabel.progress import JsonLines, write_end, write_summary
from training.config import Options, Resume
from training.threads import share_cores


def main() -> int:
    """Parses the options, trains, prints the result; returns the exit status."""
    resume = None
    if sys.argv[1:2] == ["resume"]:
        resume = tyro.cli(Resume, prog="python -m training resume", args=sys.argv[2:])
        output = resume.run
    else:
        options = tyro.cli(Options, prog="python -m training")
        output = options.output
    as_json = (resume or options).progress == "json"
    log = logging.StreamHandler(sys.stderr)
    log.setFormatter(JsonLines() if as_json else logging.Formatter("%(levelname)s %(message)s"))
    logging.basicConfig(handlers=[log], level=logging.INFO)
    claim = _claim(output)
    # All three must be set before TensorFlow is imported, which --help does not wait for.
    share_cores()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        from training.run import options_of
        from training.train import train

        if resume:
            options = dataclasses.replace(options_of(resume.run, resume.data), progress=resume.progress)
        summary = train(options)
    except (PrelabelError, OSError) as error:
        return report_error(error, as_json=as_json)
    except KeyboardInterrupt:
        # Before this run has claimed the folder, what lies there may be another one.
        claimed = _claim(output) not in ((None,) if resume else (None, claim))
        how = f"go on with `python -m training resume {output}`" if claimed else "give the same command again"
        write_end("interrupted", how, as_json=as_json)
        return EXIT_INTERRUPTED
    for name in ("test_accuracy", "hidden_accuracy"):
        if summary[name] is not None:
            left_out = summary["test_skipped"] if name == "test_accuracy" else 0
            print(
                f"{name} {summary[name]:.4f}" + (f" ({left_out:,} test images could not be used)" if left_out else "")
            )
    write_summary(summary, options.progress)
    print(f"trained {summary['steps']} steps in {summary['seconds']:.0f} s: {options.output}")
    return 0


def _claim(run: Path) -> tuple[int, int] | None:
    """Returns what changes when a run claims its folder; None where no run has."""
    try:
        status = (run / "config.json").stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


if __name__ == "__main__":
    sys.exit(main())
