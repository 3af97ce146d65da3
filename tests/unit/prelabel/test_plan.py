"""`prelabel plan` on real folders, Parquet and IDX files, with real models: what it says, and that it only looks."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tyro
from conftest import write_tiny_bundle
from PIL import Image

from prelabel.commands.plan import Plan, next_command
from prelabel.commands.run import Run
from prelabel.connection import Connection
from prelabel.planning import plan as planning
from prelabel.planning import speed
from prelabel.sources import open_source
from prelabel.testing import FakeServer
from support.command_line import run
from support.datasets import write_idx_dataset
from support.pictures import encoded, picture
from support.samples import write_pile

CPU = ("--device", "cpu", "--runtime", "onnxruntime", "--threads", "1")


@pytest.fixture(autouse=True)
def _each_stage_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "MEASURED_S", 0.0)


def plan(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """Runs `prelabel plan --json`."""
    assert run("plan", *arguments, "--json", "--progress", "none") == 0
    fields: dict[str, Any] = json.loads(capsys.readouterr().out)
    return fields


def plan_text(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, list[str]]:
    """Runs `prelabel plan`; returns the lines by their names."""
    assert run("plan", *arguments, "--progress", "none") == 0
    lines: dict[str, list[str]] = {}
    name = ""
    for line in capsys.readouterr().out.splitlines():
        name = line[:13].strip() or name
        lines.setdefault(name, []).append(line[13:])
    return lines


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Images of several sizes and kinds, some with labels, three unreadable, one copy."""
    folder = tmp_path / "my pile"
    for name in ("labelled/cat", "labelled/dog", "unlabelled"):
        (folder / name).mkdir(parents=True)
    for i in range(4):
        (folder / f"labelled/cat/{i}.png").write_bytes(encoded(picture(i)))
    (folder / "labelled/dog/0.jpg").write_bytes(encoded(picture(9).convert("CMYK"), "JPEG"))
    (folder / "unlabelled/small.png").write_bytes(encoded(picture(10, 20).convert("L")))
    (folder / "unlabelled/wide.png").write_bytes(encoded(picture(11).resize((80, 30)).convert("P")))
    (folder / "unlabelled/copy.bmp").write_bytes(encoded(picture(3), "BMP"))
    (folder / "unlabelled/bad-empty.png").touch()
    (folder / "unlabelled/bad-text.jpg").write_bytes(b"hello")
    (folder / "unlabelled/bad-cut.png").write_bytes(encoded(picture(1))[:200])
    return folder


def test_it_says_what_is_there(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = plan(capsys, "--input", mixed)
    assert (facts["kind"], facts["images"]) == ("folder", 11)
    sample = facts["sample"]
    assert sample["images"] == 11
    assert sample["sizes_px"] == {"64 x 64": 6, "20 x 20": 1, "80 x 30": 1}
    assert sample["modes"] == {"RGB": 5, "CMYK": 1, "L": 1, "P": 1}
    assert sample["labels"] == {"cat": 4, "dog": 1}
    reasons = {one["id"]: one["error"] for one in sample["unreadable"]}
    assert reasons.keys() == {f"unlabelled/bad-{name}" for name in ("empty.png", "text.jpg", "cut.png")}
    assert reasons["unlabelled/bad-empty.png"] == "the file is empty (0 bytes)"
    assert (sample["unreadable_at_least"], sample["unreadable_at_most"]) == (3, 3)
    sizes = [path.stat().st_size for path in mixed.rglob("*.*") if path.stat().st_size]
    assert sample["bytes_per_image"] == pytest.approx(np.mean(sizes))
    assert facts["duplicates"] == {"images": 8, "all": True, "exact": 1, "near": 0}
    assert facts["model"] is facts["output"] is None
    assert facts["speed"]["decode_per_s"] > 0
    assert facts["speed"]["inference_per_s"] is facts["time"]["end_to_end_s"] is None
    assert facts["next_command"] == f"prelabel run --input '{mixed}' --model BUNDLE --output predictions"


def test_the_text_says_the_same(mixed: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = plan_text(capsys, "--input", mixed, "--model", tiny_bundle, "--output", mixed.parent / "out", *CPU)
    assert lines["input"][0].startswith(f"{mixed}: folder, 11 images, about ")
    assert lines["looked at"][0].startswith("all of them, ")
    assert lines["sizes"] == ["64 x 64 px 75 %, 20 x 20 px 12.5 %, 80 x 30 px 12.5 %"]
    assert lines["pixels"] == ["RGB 62.5 %, CMYK 12.5 %, L 12.5 %, P 12.5 %"]
    assert lines["labels"] == ["cat 80 %, dog 20 %"]
    assert lines["unreadable"][0] == "3 of 11"
    assert "unlabelled/bad-empty.png: the file is empty (0 bytes)" in lines["unreadable"][1:]
    assert lines["duplicates"] == ["1 exact, 0 near: 12.5 % of 8 images"]
    assert lines["classes"] == [
        "3: low, middle, high",
        "2 labels of the input are no classes of the model: cat, dog",
    ]
    assert lines["output"][0].startswith(
        f"{mixed.parent / 'out'}: 1 files of 4,096 images, 0 done, 11 images to do, about "
    )
    assert [line.split()[0] for line in lines["time"][1:]] == ["reading", "decoding", "inference", "writing", "end"]
    (command,) = lines["next"]
    assert shlex.split(command)[:4] == ["prelabel", "run", "--input", str(mixed)]


def test_it_writes_nothing(mixed: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in mixed.parent.rglob("*"))
    plan(capsys, "--input", mixed, "--model", tiny_bundle, "--output", mixed.parent / "out", *CPU)
    assert sorted((path, path.stat().st_mtime_ns) for path in mixed.parent.rglob("*")) == before


def test_the_next_command_runs_and_the_plan_says_what_it_did(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    options = ("--input", write_pile(tmp_path / "pile", 22), "--model", tiny_bundle, "--output", output, *CPU[:4])
    facts = plan(capsys, *options, "--shard-size", 5)
    assert (facts["output"]["shards"], facts["output"]["shards_done"], facts["output"]["images_to_do"]) == (5, 0, 22)
    assert facts["time"]["end_to_end_s"] == pytest.approx(22 / facts["speed"]["end_to_end_per_s"])
    words = shlex.split(facts["next_command"])
    assert words[0] == "prelabel"
    assert run(*words[1:], "--limit", 12, "--progress", "none") == 0
    capsys.readouterr()
    facts = plan(capsys, *options, "--shard-size", 5)
    # The third file holds two images of five: it will be made again.
    assert (facts["output"]["shards_done"], facts["output"]["images_to_do"]) == (2, 12)
    (output / sorted(path.name for path in output.glob("part-*.parquet"))[0]).write_bytes(b"damaged")
    facts = plan(capsys, *options, "--shard-size", 5)
    assert (facts["output"]["shards_done"], facts["output"]["images_to_do"]) == (1, 17)
    assert run(*words[1:], "--progress", "none") == 0
    capsys.readouterr()
    facts = plan(capsys, *options, "--shard-size", 5)
    assert (facts["output"]["shards_done"], facts["output"]["images_to_do"]) == (5, 0)
    assert facts["output"]["obstacle"] is None
    assert facts["next_command"] == f"prelabel info {output}"


def test_the_next_command_has_all_that_was_given() -> None:
    ways = [
        Connection(tls=True, token_over_plaintext=True),
        Connection(tls_ca=Path("my ca.pem"), tls_certificate=Path("c.pem"), tls_key=Path("k.pem"), tls_server_name="x"),
    ]
    for connection in ways:
        words = shlex.split(next_command(Plan("pile", server="host:1", connection=connection), None))
        wanted = tyro.cli(Run, args=words[2:], config=(tyro.conf.FlagCreatePairsOff,))
        assert (wanted.server, wanted.connection) == ("host:1", connection)
    assert next_command(Plan("pile", server="host:1"), None) == (
        "prelabel run --input pile --server host:1 --output predictions"
    )
    assert next_command(Plan("pile", model=Path("bundle"), runtime="openvino", threads=3), None) == (
        "prelabel run --input pile --model bundle --output predictions --runtime openvino --threads 3"
    )


def test_it_says_why_an_output_directory_cannot_be_used(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pile, output = write_pile(tmp_path / "pile", 4), tmp_path / "out"
    made = ("--input", pile, "--model", tiny_bundle, "--output", output, *CPU)
    assert run("run", *made, "--shard-size", 2, "--progress", "none") == 0
    capsys.readouterr()
    facts = plan(capsys, *made)
    assert "give --shard-size 2" in facts["output"]["obstacle"]
    assert run(*shlex.split(facts["next_command"])[1:], "--progress", "none") == 0
    assert "0 files written, 2 were there" in capsys.readouterr().out
    (pile / "new.png").write_bytes((pile / "0000.png").read_bytes())
    facts = plan(capsys, *made, "--shard-size", 2)
    assert "of another or a changed input" in facts["output"]["obstacle"]
    assert "--output ANOTHER_DIRECTORY" in facts["next_command"]
    assert facts["output"]["shards_done"] == 0
    (pile / "new.png").unlink()
    other = write_tiny_bundle(tmp_path / "other", name="other")
    facts = plan(capsys, "--input", pile, "--model", other, "--output", output, *CPU, "--shard-size", 2)
    assert "it holds predictions of model" in facts["output"]["obstacle"]
    text = plan_text(capsys, "--input", pile, "--output", tmp_path, "--duplicates", "none")
    assert text["output"][1].startswith("cannot be used: it holds other files (other, out, pile): choose")
    text = plan_text(capsys, "--input", pile, "--output", pile / "0000.png", "--duplicates", "none")
    assert text["output"][1].startswith("cannot be used: it is a file")


def test_a_server_is_timed_like_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pile = write_pile(tmp_path / "pile", 5, broken=[2])
    with FakeServer(classes=("cat", "dog"), model_id="abc") as server:
        facts = plan(capsys, "--input", pile, "--server", server.address, "--output", tmp_path / "out")
        assert facts["next_command"].startswith(f"prelabel run --input {pile} --server {server.address} --output ")
    assert (facts["model"]["model_id"], facts["model"]["classes"]) == ("abc", ["cat", "dog"])
    rates = facts["speed"]
    assert rates["inference_per_s"] > 0
    stages = ("read_per_s", "decode_per_s", "inference_per_s", "write_per_s")
    assert rates["end_to_end_per_s"] == min(rates[name] for name in stages)
    assert facts["output"]["bytes_to_write"] == round(5 * rates["row_bytes"])


def test_stages_that_share_the_cores_add_up(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = plan(capsys, "--input", write_pile(tmp_path / "pile", 5), "--model", tiny_bundle, *CPU)
    rates = facts["speed"]
    together_per_s = 1 / sum(1 / rates[name] for name in ("decode_per_s", "inference_per_s", "write_per_s"))
    assert rates["end_to_end_per_s"] == pytest.approx(min(together_per_s, rates["read_per_s"]))


def test_nothing_that_can_be_decoded(tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pile = write_pile(tmp_path / "pile", 3, broken=[0, 1, 2])
    text = plan_text(capsys, "--input", pile, "--model", tiny_bundle, "--output", tmp_path / "out", *CPU)
    assert text["sizes"] == text["pixels"] == ["none can be read"]
    assert text["unreadable"][0] == "3 of 3"
    assert text["duplicates"] == ["0 exact, 0 near: 0 % of 0 images"]
    assert [line.split()[0] for line in text["time"][1:]] == ["reading"]


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte.gz", "x.parquet"])
def test_other_kinds_of_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    write_idx_dataset(tmp_path)
    images = open_source(tmp_path / "t10k-images-idx3-ubyte.gz")
    rows = list(images.read(0, 60))
    files = [encoded(Image.fromarray(row.content)) for row in rows if isinstance(row.content, np.ndarray)]
    pq.write_table(pa.table({"image": files, "label": [row.label for row in rows]}), tmp_path / "x.parquet")
    facts = plan(capsys, "--input", tmp_path / name, "--sample", 20)
    assert facts["kind"] == ("parquet" if name == "x.parquet" else "idx")
    assert facts["images"] == 60
    assert facts["sample"]["images"] == 20
    assert facts["sample"]["sizes_px"] == {"16 x 16": 20}
    assert sum(facts["sample"]["labels"].values()) == 20
    assert facts["duplicates"]["images"] == 60


def test_duplicates_in_a_sample_of_blocks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pile = tmp_path / "pile"
    pile.mkdir()
    for i in range(40):
        (pile / f"{i:02d}.png").write_bytes(encoded(picture(i // 2, 32)))
    monkeypatch.setattr(planning, "BLOCK_IMAGES", 4)
    monkeypatch.setattr(planning, "SAMPLED_IMAGES", 20)
    options = ("--input", pile)
    assert plan(capsys, *options, "--duplicates", "sample")["duplicates"] == {
        "images": 20,
        "all": False,
        "exact": 10,
        "near": 0,
    }
    assert plan(capsys, *options, "--duplicates", "all")["duplicates"] == {
        "images": 40,
        "all": True,
        "exact": 20,
        "near": 0,
    }
    assert plan(capsys, *options, "--duplicates", "none")["duplicates"] is None
    assert "more in the whole" in plan_text(capsys, *options, "--duplicates", "sample")["duplicates"][0]
    assert plan(capsys, *options)["duplicates"]["all"]
    monkeypatch.setattr("prelabel.commands.plan.COUNT_ALL_IMAGES", 39)
    assert not plan(capsys, *options)["duplicates"]["all"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "nowhere"], "input nowhere does not exist"),
        (["--sample", "0"], "--sample 0 is not usable"),
        (["--shard-size", "0"], "--shard-size 0 is not usable"),
        (["--seed", "-1"], "--seed -1 is not usable: 0 or more is wanted"),
        (["--threads", "-1"], "--threads -1 is not usable: 0 or more is wanted"),
        (["--model", "x", "--server", "y:1"], "give --server HOST:PORT or --model BUNDLE, not both"),
        (["--model", "nowhere"], "nowhere holds no model bundle"),
    ],
)
def test_wrong_options_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    pile = write_pile(tmp_path / "pile", 2)
    assert run("plan", "--input", pile, "--progress", "none", *options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
