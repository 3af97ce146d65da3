"""Bundles that say more of themselves than the tiny one."""

import dataclasses
import shutil
from pathlib import Path

from prelabel.bundle import BUNDLE_FILE, MODEL_FILE, load_bundle
from prelabel.files import sha256_file
from prelabel.precisions import VARIANT_FILES, PrecisionFigures


def with_precisions(bundle: Path, directory: Path, *figures: PrecisionFigures) -> Path:
    """Copies a bundle to `directory` and lets it say these figures; variants that passed have the float32 graph."""
    shutil.copytree(bundle, directory)
    described = load_bundle(bundle)
    files = dict(described.files)
    for one in figures:
        if one.passed and one.precision in VARIANT_FILES:
            name = VARIANT_FILES[one.precision]
            shutil.copy(bundle / MODEL_FILE, directory / name)
            files[name] = sha256_file(directory / name)
    described = dataclasses.replace(described, precisions=figures, files=files)
    (directory / BUNDLE_FILE).write_text(described.to_json())
    return directory
