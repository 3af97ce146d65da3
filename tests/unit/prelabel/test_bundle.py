"""The bundle's promise: what is loaded is what export wrote, or an error."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from prelabel.bundle import BUNDLE_FILE, MODEL_FILE, load_bundle
from prelabel.errors import BundleError
from prelabel.precisions import PrecisionFigures
from support.bundles import with_precisions

BORROWED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)

REFUSED = PrecisionFigures("int8", "openvino", "static", False, "agreement 99 %", 5000, "test split", 0.99, 0.1)


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def test_a_bundle_is_read_as_it_was_written(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    assert bundle.to_json() == (tiny_bundle / BUNDLE_FILE).read_text()
    assert bundle.classes == ("low", "middle", "high")
    assert bundle.input.shape == (8, 8, 1)


def test_the_model_id_stands_for_every_field(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    others = [
        dataclasses.replace(bundle, name="other"),
        dataclasses.replace(bundle, classes=("high", "middle", "low")),
        dataclasses.replace(bundle, opset=18),
        dataclasses.replace(bundle, training={"seed": 1}),
        dataclasses.replace(bundle, calibration={"temperature": 2.0}),
        dataclasses.replace(bundle, files={MODEL_FILE: "0" * 64}),
        dataclasses.replace(bundle, precisions=(REFUSED,)),
        dataclasses.replace(bundle, precisions=(REFUSED, REFUSED)),
    ]
    assert len({one.model_id for one in [bundle, *others]}) == len(others) + 1


def test_every_changed_byte_of_the_description_is_found_or_means_the_same(bundle: Path) -> None:
    path = bundle / BUNDLE_FILE
    original = path.read_bytes()
    loaded, meaning = load_bundle(bundle), json.loads(original)
    for position in range(len(original)):
        for flip in (1, 0x20):
            changed = bytearray(original)
            changed[position] ^= flip
            path.write_bytes(changed)
            try:
                answer = load_bundle(bundle)
            except BundleError:
                continue
            assert answer == loaded
            assert json.loads(bytes(changed)) == meaning


@BORROWED
@given(st.integers(min_value=0), st.integers(1, 255))
@example(0, 1)
def test_every_changed_byte_of_the_model_is_found(bundle: Path, position: int, flip: int) -> None:
    path = bundle / MODEL_FILE
    original = path.read_bytes()
    changed = bytearray(original)
    changed[position % len(changed)] ^= flip
    path.write_bytes(changed)
    with pytest.raises(BundleError, match=r"model\.onnx was changed after export"):
        load_bundle(bundle)
    path.write_bytes(original)
    load_bundle(bundle)


@BORROWED
@given(st.binary(max_size=50) | st.dictionaries(st.text(), st.none() | st.integers()).map(json.dumps).map(str.encode))
@example(b"[" * 100_000)
@example(b"{}")
@example(b'{"model_id": "x", "format_version": 1, "files": {"model.onnx": ""}}')
@example(b'{"model_id": "x", "format_version": 1, "files": ["model.onnx"], "classes": [], "input": 3}')
def test_any_other_description_is_a_bundle_error(bundle: Path, data: bytes) -> None:
    (bundle / BUNDLE_FILE).write_bytes(data)
    with pytest.raises(BundleError, match=r"bundle\.json|bundle format"):
        load_bundle(bundle)


def rewrite(bundle: Path, **changes: object) -> None:
    content = json.loads((bundle / BUNDLE_FILE).read_text())
    (bundle / BUNDLE_FILE).write_text(json.dumps({**content, **changes}))


def test_a_field_that_is_not_of_the_format_is_found(bundle: Path) -> None:
    rewrite(bundle, input={"height": 8, "width": 8, "channels": 1, "resize_rule": "stretch-bilinear", "crop": True})
    with pytest.raises(BundleError, match="crop"):
        load_bundle(bundle)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_is_named(bundle: Path, version: object) -> None:
    rewrite(bundle, format_version=version)
    with pytest.raises(BundleError, match=f"bundle format {version} is not known.*reads format 1"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "sub/model.onnx"])
def test_files_outside_the_bundle_are_refused(bundle: Path, name: str) -> None:
    rewrite(bundle, files={MODEL_FILE: "0", name: "0"})
    with pytest.raises(BundleError, match="are not those of a bundle"):
        load_bundle(bundle)


def test_an_unusable_input_is_named(bundle: Path) -> None:
    rewrite(bundle, input={"height": 8, "width": 8, "channels": 2, "resize_rule": "stretch-bilinear"})
    with pytest.raises(BundleError, match=r"bundle\.json is not usable: image shape \(8, 8, 2\)"):
        load_bundle(bundle)


def test_a_missing_model_is_named(bundle: Path) -> None:
    (bundle / MODEL_FILE).unlink()
    with pytest.raises(BundleError, match=r"incomplete: model\.onnx is missing"):
        load_bundle(bundle)


def test_a_directory_without_a_bundle_says_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(BundleError, match=f"{path} holds no model bundle .*make export"):
            load_bundle(path)


def test_a_run_or_a_file_in_the_place_of_its_bundle_says_so(bundle: Path) -> None:
    run = bundle.parent / "run"
    run.mkdir()
    made = bundle.rename(run / "bundle")
    for path in (run, made / MODEL_FILE):
        with pytest.raises(BundleError, match=rf"{path} holds no model bundle .*: is {made} meant\?"):
            load_bundle(path)


def test_a_description_that_cannot_be_read_is_named(bundle: Path) -> None:
    (bundle / BUNDLE_FILE).unlink()
    (bundle / BUNDLE_FILE).mkdir()
    with pytest.raises(BundleError, match=r"bundle\.json cannot be read: Is a directory"):
        load_bundle(bundle)


def test_a_bundle_from_before_the_precisions_keeps_its_model_id(bundle: Path) -> None:
    assert "precisions" not in json.loads((bundle / BUNDLE_FILE).read_text())
    assert load_bundle(bundle).precisions == ()


def test_precisions_are_read_as_they_were_written(tiny_bundle: Path, tmp_path: Path) -> None:
    allowed = dataclasses.replace(REFUSED, runtime="onnxruntime", passed=True)
    bundle = load_bundle(with_precisions(tiny_bundle, tmp_path / "bundle", REFUSED, allowed))
    assert bundle.precisions == (REFUSED, allowed)
    assert bundle.figures("int8") == (REFUSED, allowed)
    assert set(bundle.files) == {MODEL_FILE, "model.int8.onnx"}
    (tmp_path / "bundle" / "model.int8.onnx").unlink()
    with pytest.raises(BundleError, match=r"incomplete: model\.int8\.onnx is missing"):
        load_bundle(tmp_path / "bundle")


def test_a_variant_that_is_allowed_and_has_no_file_is_found(bundle: Path) -> None:
    allowed = dataclasses.replace(REFUSED, passed=True)
    description = dataclasses.replace(load_bundle(bundle), precisions=(allowed,))
    (bundle / BUNDLE_FILE).write_text(description.to_json())
    with pytest.raises(BundleError, match="int8 is allowed, but has no file among"):
        load_bundle(bundle)


def test_a_bundle_from_before_a_field_keeps_its_model_id(bundle: Path) -> None:
    content = json.loads((bundle / BUNDLE_FILE).read_text())
    del content["model_id"], content["calibration"]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    model_id = hashlib.sha256(canonical.encode()).hexdigest()[:16]
    (bundle / BUNDLE_FILE).write_text(json.dumps({"model_id": model_id, **content}))
    loaded = load_bundle(bundle)
    assert (loaded.model_id, loaded.calibration) == (model_id, None)
    assert dataclasses.replace(loaded, name="other").model_id != model_id
    rewrite(bundle, name="other")
    with pytest.raises(BundleError, match="was changed after export"):
        load_bundle(bundle)
