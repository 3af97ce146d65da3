"""The documentation says what the code and the measured figures say."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from prelabel.testing import FakeServer
from scripts.render import render

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def test_the_pages_show_the_figures_that_were_measured(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(ROOT)
    for page in PAGES:
        text = page.read_text()
        assert render(text) == text, page


def test_results_say_where_they_come_from() -> None:
    results = sorted((ROOT / "docs/results").glob("*.json"))
    assert results
    for path in results:
        content = json.loads(path.read_text())
        assert content["command"], path
        assert re.fullmatch(r"[0-9a-f]{40}", content["commit"]), path
        assert content["machine"]["cores"] >= 1, path


def test_links_and_pictures_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text().partition("## More")[2]))
    assert {str(page.relative_to(ROOT)) for page in PAGES} - linked == {"README.md"}


def test_what_the_map_names_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    names = set(re.findall(r"\b(?:prelabel|training|export|serving)(?:\.\w+)+", text)) - {"training.json"}
    assert len(names) > 40
    for name in names:
        path = ROOT / name.replace(".", "/")
        if not path.is_dir() and not path.with_suffix(".py").exists():
            module = path.parent.with_suffix(".py")
            assert module.exists(), name
            assert re.search(rf"^(def|class) {path.name}\b", module.read_text(), re.MULTILINE), name


def test_the_map_names_every_package() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    packages = [path.parent for top in ("prelabel", "serving") for path in ROOT.glob(f"{top}/**/__init__.py")]
    for package in packages:
        assert re.search(rf"\b{'[./]'.join(package.relative_to(ROOT).parts)}\b", text), package


def test_the_table_of_the_wheel_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    table = text[text.index("| layer of `prelabel/` |") :].partition("\n\n")[0]
    for path in (ROOT / "prelabel").glob("*.py"):
        # The engines are named together.
        assert path.name.startswith(("__init__", "engine_")) or f"`{path.stem}`" in table, path.name


def test_make_targets_that_the_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"(?:^    |`)make ((?:[a-z][a-z0-9-]*\s?)+)", page.read_text(), re.MULTILINE)
        for target in " ".join(named).split():
            assert target in targets, f"{page.name}: make {target}"


def test_the_python_code_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("digit.png", "photos/1.png", "photos/2.png", "photos/3.png"):
        Image.new("L", (28, 28), 200).save(name)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    with FakeServer() as one, FakeServer() as other:
        for block in blocks:
            code = block.replace("127.0.0.1:50051", one.address).replace("127.0.0.1:50052", other.address)
            exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.count("dog") == 4
