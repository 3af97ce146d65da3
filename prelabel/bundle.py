"""The model bundle: the only thing that export and serving share.

A bundle is a directory with `bundle.json` (this dataclass) and the files that it names: `model.onnx` first of all, and
the graphs of reduced precisions that passed the export's gate. Its `model_id` is a hash over everything else in
`bundle.json`, the SHA-256 of every file included: a changed byte anywhere makes the bundle another one, and
`load_bundle` refuses it.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from prelabel.errors import BundleError, InputError
from prelabel.files import sha256_file
from prelabel.images import ImageSpec
from prelabel.precisions import VARIANT_FILES, Precision, PrecisionFigures, Runtime

FORMAT_VERSION = 1
BUNDLE_FILE = "bundle.json"
MODEL_FILE = "model.onnx"


@dataclass(frozen=True)
class Parity:
    """Keras against ONNX Runtime on the same images, as measured when the bundle was made."""

    real_images: int
    """How many images of the data set were compared."""
    random_images: int
    """How many images of uniform noise were compared."""
    max_abs_difference: float
    """Largest difference over all probabilities and realness values."""
    argmax_differences: int
    """Images whose most probable class differs although its lead is over the tolerance: always 0 in a bundle."""
    tolerance: float
    """The largest `max_abs_difference` that export allows."""


@dataclass(frozen=True)
class Bundle:
    """Everything that a user of the model needs to know; the content of `bundle.json`."""

    name: str
    """Name of the training run."""
    classes: tuple[str, ...]
    """Class names; the position is the label index."""
    input: ImageSpec
    """Shape and resize rule of one input image."""
    opset: int
    """ONNX operator set of the graph."""
    parity: Parity
    """The export's parity figures."""
    training: dict[str, Any]
    """Configuration, step and code version of the training run."""
    files: dict[str, str]
    """File name -> SHA-256 of its bytes."""
    input_name: str = "images"
    """Graph input: uint8 [N, H, W, C], 0..255; scaling is part of the graph."""
    probabilities_name: str = "probabilities"
    """Graph output: float32 [N, K], 0..1."""
    realness_name: str = "realness"
    """Graph output: float32 [N], 0..1."""
    calibration: dict[str, Any] | None = None
    """Temperature and its provenance, where one was fitted on held-out labels."""
    precisions: tuple[PrecisionFigures, ...] = ()
    """Every reduced precision that was tried at export, the refused ones too. Without any the model runs in float32."""
    format_version: int = FORMAT_VERSION

    @functools.cached_property  # every batch of answers asks for it
    def model_id(self) -> str:
        """16 hexadecimal characters that stand for the whole content."""
        return _id_of(_plain(self))

    def allows(self, precision: Precision, runtime: Runtime) -> bool:
        """Whether the model may run so: float32 always, others where their figures passed."""
        return precision == "float32" or any(
            figures.passed for figures in self.figures(precision) if figures.runtime == runtime
        )

    def figures(self, precision: Precision) -> tuple[PrecisionFigures, ...]:
        """Returns what is known of a reduced precision."""
        return tuple(figures for figures in self.precisions if figures.precision == precision)

    def file_of(self, precision: Precision) -> str:
        """Returns the name of the graph that is run in a precision."""
        return VARIANT_FILES.get(precision, MODEL_FILE)

    def to_json(self) -> str:
        """Returns the text of `bundle.json`."""
        return json.dumps({"model_id": self.model_id, **_plain(self)}, indent=2) + "\n"


def load_bundle(directory: Path) -> Bundle:
    """Reads a bundle and verifies every byte of it.

    Raises:
        BundleError: The directory is no bundle, a file is missing, or something changed since it was made.
    """
    return read_bundle(directory, lambda _: ())[0]


def read_bundle(directory: Path, wanted: Callable[[Bundle], Collection[str]]) -> tuple[Bundle, dict[str, bytes]]:
    """Reads a bundle as `load_bundle` does, and keeps what some of its files hold.

    Each file is read once: what is returned are the bytes that were verified, also where another bundle takes the
    directory's place meanwhile.

    Args:
        directory: The bundle.
        wanted: Returns the names of the files whose bytes are kept; what it raises ends the reading.

    Returns:
        The bundle; and file name -> bytes of the wanted files.

    Raises:
        BundleError: See `load_bundle`.
    """
    bundle = _described(directory)
    names = wanted(bundle)
    contents: dict[str, bytes] = {}
    for name, digest in bundle.files.items():
        file = directory / name
        if not file.is_file():
            raise BundleError(f"{directory} is incomplete: {name} is missing; export the model again")
        if name in names:
            contents[name] = file.read_bytes()
            found = hashlib.sha256(contents[name]).hexdigest()
        else:
            found = sha256_file(file)
        if found != digest:
            raise BundleError(
                f"{file} was changed after export (its SHA-256 is not the bundle's): export the model again"
            )
    return bundle, contents


def _described(directory: Path) -> Bundle:
    """Reads `bundle.json`, whose `model_id` must be that of its content."""
    path = directory / BUNDLE_FILE
    try:
        content = json.loads(path.read_bytes())
        claimed_id = content.pop("model_id")
        bundle = _from_plain(content)
    except (FileNotFoundError, NotADirectoryError):
        near = next((one for one in (directory / "bundle", directory.parent) if (one / BUNDLE_FILE).is_file()), None)
        hint = "make one with `make export`" if near is None else f"is {near} meant?"
        raise BundleError(f"{directory} holds no model bundle ({BUNDLE_FILE} is missing): {hint}") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from None
    except InputError as error:
        raise BundleError(f"{path} is not usable: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"{path} is damaged ({type(error).__name__}: {error}): export the model again") from None
    # Of what was written, not of what it is read as: a field that is new since then has its default.
    if (found := _id_of(content)) != claimed_id:
        raise BundleError(f"{path} was changed after export (model_id {claimed_id}, content {found})")
    vars(bundle)["model_id"] = claimed_id
    return bundle


def _id_of(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _plain(bundle: Bundle) -> dict[str, Any]:
    plain = cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(bundle))))
    if not bundle.precisions:  # bundles that were made before there were any keep their model_id
        del plain["precisions"]
    return plain


def _from_plain(content: dict[str, Any]) -> Bundle:
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"bundle format {version} is not known: this version of prelabel reads format {FORMAT_VERSION}"
        )
    files = content["files"]
    if MODEL_FILE not in files or any(Path(name).name != name for name in files):
        raise BundleError(f"files {sorted(files)} are not those of a bundle: plain names with {MODEL_FILE} among them")
    precisions = tuple(PrecisionFigures(**figures) for figures in content.get("precisions", ()))
    for variant in precisions:
        if variant.passed and VARIANT_FILES.get(variant.precision, MODEL_FILE) not in files:
            raise BundleError(f"{variant.precision} is allowed, but has no file among {sorted(files)}: export it again")
    return Bundle(
        **{
            **content,
            "classes": tuple(content["classes"]),
            "input": ImageSpec(**content["input"]),
            "parity": Parity(**content["parity"]),
            "precisions": precisions,
        }
    )
