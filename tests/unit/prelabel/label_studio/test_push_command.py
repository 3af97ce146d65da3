"""`prelabel push label-studio` as a user types it."""

import itertools
from pathlib import Path

import pytest

from prelabel import __main__ as cli
from prelabel.adapters.label_studio.session import Session
from prelabel.adapters.label_studio.token import Token
from prelabel.errors import PrelabelError, ServerUnavailableError
from support.command_line import error_line
from support.label_studio import LEGACY_TOKEN, LabelStudioDouble, config
from support.samples import write_pile


def run(studio: LabelStudioDouble, predictions: Path, *more: object) -> int:
    arguments = ("--predictions", predictions, "--url", studio.url, "--project", 7, "--progress", "none")
    return cli.main([str(one) for one in ("push", "label-studio", *arguments, "--retry-for-s", 0, *more)])


def test_the_command_pushes_a_folder_that_label_studio_serves(
    studio: LabelStudioDouble, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    studio.label_config = config("low", "middle", "high")
    pile = write_pile(tmp_path / "my photos", 5, broken=[3])
    options = ("--device", "cpu", "--threads", 1, "--progress", "none")
    arguments = ("run", "--input", pile, "--model", tiny_bundle, "--output", tmp_path / "out", *options)
    assert cli.main([str(one) for one in arguments]) == 3
    capsys.readouterr()
    assert run(studio, tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "project 7 (cats): 5 tasks made, 0 predictions added" in out
    assert "1 tasks have no prediction, because their rows are errors" in out
    assert studio.tasks[0]["data"]["image"] == "/data/local-files/?d=my%20photos/0000.png"
    studio.tasks.clear()
    assert run(studio, tmp_path / "out", "--images", pile) == 0
    first = studio.tasks[0]["data"]["image"]
    assert first.startswith("data:image/png;base64,iVBOR")
    assert len(studio.tasks) == 5
    (pile / "new.png").write_bytes(b"x")
    capsys.readouterr()
    assert run(studio, tmp_path / "out", "--images", pile) == 2
    assert "are of another input (manifest" in error_line(capsys)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--image-url-prefix", "x", "--project", 8], "has no project 8, or the token's owner may not see it"),
        (["--image-url-prefix", "x", "--url", "localhost:8080"], "--url localhost:8080 is no address"),
        (["--image-url-prefix", "x", "--url", "http://me:pw@localhost"], "without user name"),
        (["--image-url-prefix", "x", "--url", "http://[bad"], "is no address"),
        (["--image-url-prefix", "x", "--url", "http://127.0.0.1:1"], "no Label Studio answers at http://127.0.0.1:1"),
        (["--image-url-prefix", "x", "--choices", "kind"], 'has no <Choices name="kind"> about an <Image>'),
        (["--image-url-prefix", "x", "--chunk", 0], "--chunk 0 is not usable"),
        (["--image-url-prefix", "x", "--images", "y"], "give either --images or --image-url-prefix"),
        (["--image-url-prefix", "x", "--lane", "review"], "has no lanes"),
        ([], "where the images of"),
    ],
)
def test_bad_input_is_one_line(
    studio: LabelStudioDouble, predictions: Path, capsys: pytest.CaptureFixture[str], more: list[object], message: str
) -> None:
    assert run(studio, predictions, *more) == 2
    assert message in error_line(capsys)
    assert studio.posts == []


def test_a_page_instead_of_json_is_one_line(
    studio: LabelStudioDouble, predictions: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studio, "answer", lambda *_: (200, b"<html>please log in</html>"))
    assert run(studio, predictions, "--image-url-prefix", "x") == 2
    assert "answered status 200: text/html instead of JSON; is this the address of a Label Studio" in error_line(capsys)
    monkeypatch.setattr(studio, "answer", lambda *_: (200, {"hello": "world"}))
    assert run(studio, predictions, "--image-url-prefix", "x") == 2
    assert "but not as Label Studio does" in error_line(capsys)
    monkeypatch.setattr(studio, "answer", lambda *_: (302, b""))
    assert run(studio, predictions, "--image-url-prefix", "x") == 2
    assert "redirect" in error_line(capsys)


def test_a_server_that_is_away_is_tried_again_and_named(studio: LabelStudioDouble) -> None:
    pauses: list[float] = []
    ticks = itertools.count()
    gone = Session("http://127.0.0.1:1", Token(LEGACY_TOKEN), sleep=pauses.append, clock=lambda: float(next(ticks)))
    with pytest.raises(ServerUnavailableError, match="Connection refused"):
        gone.ask("/api/projects/7/")
    assert len(pauses) > 3
    assert issubclass(ServerUnavailableError, PrelabelError)
