"""The page of `prelabel report` in a real browser: nothing asked for, nothing to complain about, usable by keyboard."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prelabel.report.make import Inputs, make_report
from support.browser import Browser, chromium
from support.reports import HOSTILE, predicted_folder

pytestmark = pytest.mark.browser

CONTRAST = """
// WCAG 2.2: (lighter + 0.05) / (darker + 0.05) of the relative luminances; every text against what lies behind it.
const channels = (colour) => {
  const numbers = colour.match(/[\\d.]+/g).map(Number);
  return numbers.length < 4 ? [...numbers, 1] : numbers;
};
const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
const luminance = (colour) => {
  const [r, g, b] = colour.map((one) => {
    const part = one / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const colour = channels(getComputedStyle(one).backgroundColor);
    if (colour[3] === 1) return colour;
  }
  return [255, 255, 255, 1];
};
let worst = [99, ""];
for (const one of document.querySelectorAll("details")) one.open = true;
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || !element.checkVisibility() || element.closest("dialog, script, style, title")) continue;
  const style = getComputedStyle(element);
  let back = behind(element);
  const cell = element.previousElementSibling;
  if (element.closest("svg") && cell?.matches("rect.right, rect.wrong")) {
    const fill = channels(getComputedStyle(cell).fill);
    back = over([...fill.slice(0, 3), Number(cell.getAttribute("fill-opacity"))], back);
  }
  const front = over(channels(element.closest("svg") ? style.fill : style.color), back);
  const [light, dark] = [luminance(front), luminance(back)].sort((a, b) => b - a);
  const ratio = (light + 0.05) / (dark + 0.05);
  if (ratio < worst[0]) worst = [ratio, `${element.tagName}.${element.className}: ${element.textContent.slice(0, 40)}`];
}
return worst;
"""
FOCUS = "return [document.activeElement.closest('section')?.id, document.activeElement.className]"
TILE = "return [...document.activeElement.closest('ul').querySelectorAll('.tile')].indexOf(document.activeElement)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    known = predicted_folder(folder / "pile", 200, HOSTILE, failed={3: "<b>broken</b>"})
    labels = known.write_labels(folder / "labels.csv")
    inputs = Inputs(known.predictions, str(known.images), None, str(labels), None, None)
    make_report(inputs, folder / "report.html", sample=1000, seed=0)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_opens_without_requests_and_complaints(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.requests()
    browser.open(page, width, scheme=scheme)
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run("return [...document.images].every((one) => one.complete && one.naturalWidth > 0)")
    ratio, where = browser.run(CONTRAST)
    assert ratio >= 4.5, where
    assert browser.run("return document.title") == "Pre-labels"  # the hostile names did not run


def test_its_policy_stops_what_would_get_through(browser: Browser, page: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    injected = "<script>document.title = 'broken'</script><img src='http://127.0.0.1:9/x.png' alt='x'>"
    broken.write_text(page.read_text().replace("<footer>", f"{injected}<footer>"))
    browser.requests()
    browser.open(broken, 1280)
    assert browser.run("return document.title") == "Pre-labels"
    assert browser.requests() == [broken.as_uri()]
    assert len([one for one in browser.complaints() if "Content Security Policy" in one]) == 2


def test_the_keyboard_reaches_everything(browser: Browser, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(page, 1280)
    browser.press(Keys.TAB)
    assert browser.run("return document.activeElement.className") == "skip"
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press(Keys.ENTER)
    assert browser.run("return document.activeElement.id") == "main"
    while browser.run(FOCUS)[1] != "tile":
        browser.press(Keys.TAB)
    assert browser.run(FOCUS) == ["most-certain", "tile"]
    positions = []
    right, down, left, up = Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_LEFT, Keys.ARROW_UP
    for key in (right, down, left, up, Keys.END, right, Keys.HOME):
        browser.press(key)
        positions.append(browser.run(TILE))
    columns = positions[1] - positions[0]
    assert columns == 12  # 48 images fill their rows, and what repeats stands beside what it repeats
    assert positions == [1, 1 + columns, columns, 0, 47, 47, 0]
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press(Keys.TAB)
    assert browser.run(FOCUS) == ["least-certain", "tile"]  # a sheet is one stop
    browser.press(Keys.TAB, shift=True)
    assert browser.run(FOCUS) == ["most-certain", "tile"]


def test_an_image_opens_with_its_details(browser: Browser, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    def dialog() -> Any:
        return browser.run(
            "const d = document.querySelector('dialog');"
            "return d.open ? [d.querySelector('h2').textContent, d.querySelector('dl').textContent] : null"
        )

    browser.open(page, 390)
    browser.run("document.querySelector('#least-certain').querySelector('.tile').focus()")
    browser.press(Keys.ENTER)
    title, details = dialog()
    assert title == "Image 1 of 48"
    assert "Confidence" in details
    browser.press(Keys.ARROW_RIGHT)
    assert dialog()[0] == "Image 2 of 48"
    assert dialog()[1] != details
    assert browser.complaints() == []
    browser.press(Keys.ESCAPE)
    assert dialog() is None
    browser.wait_for(f"return (() => {{ {TILE} }})() === 1")


def test_it_prints_on_light_paper_with_everything_unfolded(browser: Browser, page: Path) -> None:
    browser.open(page, 1280, scheme="dark")
    browser.run("window.unfolded = -1; addEventListener('beforeprint', () => {"
                "window.unfolded = document.querySelectorAll('details:not([open])').length })")  # fmt: skip
    pdf = browser.driver.execute_cdp_cmd("Page.printToPDF", {})
    assert len(pdf["data"]) > 50_000
    assert browser.run("return window.unfolded") == 0
    browser.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("return getComputedStyle(document.querySelector('nav')).display") == "none"
