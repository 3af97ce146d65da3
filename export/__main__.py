"""The command `python -m export`."""

import logging
import os
import sys

import tyro

from export.config import Options
from prelabel.commands.exits import EXIT_INTERRUPTED, report_error
from prelabel.errors import PrelabelError


def main() -> int:
    """Parses the options, exports, prints what the bundle is; returns the exit status."""
    options = tyro.cli(Options, prog="python -m export")
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    # Both must be set before TensorFlow is imported, which --help does not wait for.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        from export.publish import export_run

        directory, bundle = export_run(options)
    except (PrelabelError, OSError) as error:
        return report_error(error)
    except KeyboardInterrupt:
        print("interrupted: no bundle was written; give the same command again", file=sys.stderr)
        return EXIT_INTERRUPTED
    parity = bundle.parity
    print(f"bundle {directory}: model {bundle.model_id}, {len(bundle.classes)} classes, opset {bundle.opset}")
    print(
        f"parity with Keras on {parity.real_images} real and {parity.random_images} random images: "
        f"largest difference {parity.max_abs_difference:.1e}, {parity.argmax_differences} other classes"
    )
    for tried in bundle.precisions:
        verdict = "allowed" if tried.passed else "refused"
        print(f"{tried.precision} by {tried.runtime} ({tried.recipe}): {verdict}, {tried.reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
