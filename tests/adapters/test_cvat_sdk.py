"""The CVAT function file, run by cvat_sdk's own auto-annotation driver against the HTTP interface of one task."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import cvat_sdk.auto_annotation as cvataa
import pytest
from cvat_sdk.core.client import Client, Config

from prelabel.adapters import cvat_function
from prelabel.adapters.rows import Selection
from prelabel.errors import InputError
from prelabel.testing import FakeServer
from support.conversions import Case, conversion_of, png, rows_of, write_case
from support.cvat_server import FIRST_LABEL_ID, TASK, FakeCvat


def load(path: Path) -> ModuleType:
    """As cvat-cli does it."""
    spec = importlib.util.spec_from_file_location("__cvat_function__", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def annotate(function: Any, cvat: FakeCvat, cache: Path, **options: Any) -> dict[int, str]:
    """Returns frame -> label of the tags that were uploaded."""
    with cvat.serve() as address:
        client = Client(address, config=Config(cache_dir=cache), check_server_version=False)
        with client:
            cvataa.annotate_task(client, TASK, function, **options)
    (upload,) = cvat.uploads
    assert upload["shapes"] == []
    assert all(tag["source"] == "auto" for tag in upload["tags"])
    return {tag["frame"]: cvat.labels[tag["label_id"] - FIRST_LABEL_ID] for tag in upload["tags"]}


def function_of(tmp_path: Path, predictions: Path, selection: Selection | None = None, **parameters: str) -> Any:
    cvat_function.write(tmp_path / "function.py", conversion_of(predictions, selection=selection or Selection()))
    return load(tmp_path / "function.py").create(**parameters)


def test_stored_predictions_become_tags(tmp_path: Path, predictions: Path, case: Case) -> None:
    cvat = FakeCvat(list(reversed(case.classes)), {name: png(i) for i, name in enumerate(case.ids)})
    tags = annotate(function_of(tmp_path, predictions), cvat, tmp_path / "cache")
    assert tags == {row.position: row.label for row in rows_of(predictions) if row.label is not None}


def test_thresholds_and_lanes(tmp_path: Path, predictions: Path, case: Case) -> None:
    images = {name: png(i) for i, name in enumerate(case.ids)}
    function = function_of(tmp_path, predictions, Selection(lanes=("accept",)))
    assert set(annotate(function, FakeCvat(case.classes, images), tmp_path / "a")) == {1, 5, 7}
    function = function_of(tmp_path, predictions)
    assert annotate(function, FakeCvat(case.classes, images), tmp_path / "b", conf_threshold=0.99) == {}


@pytest.mark.parametrize(
    ("ids", "frame", "wanted"),
    [
        (["a/0.png", "b/1.png"], "b/1.png", 1),
        (["a/0.png", "b/1.png"], "1.png", 1),
        (["a/0.png", "b/1.png"], "set7/b/1.png", 1),
        (["a/0.png", "b/0.png"], "set7/b/0.png", 1),
        (["a/0.png", "b/0.png"], "0.png", None),
        (["a/0.png", "b/1.png"], "new/1.png", None),
        (["000000", "000001"], "000001.png", 1),
        (["a/0.png", "b/1.png"], "2.png", None),
    ],
)
def test_frames_are_found_by_their_names(tmp_path: Path, ids: list[str], frame: str, wanted: int | None) -> None:
    case = Case(["x", "y", "z"], ids)
    directory = write_case(tmp_path / "predictions", case)
    tags = annotate(function_of(tmp_path, directory), FakeCvat(case.classes, {frame: png(0)}), tmp_path / "cache")
    assert tags == ({} if wanted is None else {0: rows_of(directory)[wanted].label})


def test_other_images_are_asked_of_the_server(tmp_path: Path) -> None:
    classes = ["cat", "dog"]
    directory = write_case(tmp_path / "predictions", Case(classes, ["known.png"]))
    with FakeServer(classes=tuple(classes)) as server:
        function = function_of(tmp_path, directory, server=server.address)
        cvat = FakeCvat(classes, {"known.png": png(0), "new.png": png(1, (28, 28)), "broken.png": png(2)})
        tags = annotate(function, cvat, tmp_path / "cache")
    assert tags[0] == rows_of(directory)[0].label
    assert tags[1] in classes


def test_a_server_of_another_model_is_refused(tmp_path: Path) -> None:
    directory = write_case(tmp_path / "predictions", Case(["a"], ["x"]))
    message = "has the classes cat, dog, but the predictions have a"
    with FakeServer(classes=("cat", "dog")) as server, pytest.raises(InputError, match=message):
        function_of(tmp_path, directory, server=server.address)
    with pytest.raises(InputError, match="either server or model"):
        function_of(tmp_path, directory, server="x:1", model="y")
