"""What a page says, read by a parser: its tables, ids and attributes; and that its tags are balanced."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "input", "hr"}
Attributes = dict[str, str | None]


@dataclass
class Page:
    """A parsed page."""

    elements: list[tuple[str, Attributes]] = field(default_factory=list)
    """Tags and their attributes, in order."""
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    """Caption -> rows of cells, the header first."""
    text: str = ""
    """All text that is no script and no style."""
    scripts: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)

    def all(self, tag: str) -> list[Attributes]:
        return [attributes for name, attributes in self.elements if name == tag]


def parse(source: str) -> Page:
    """Parses a page; unbalanced tags and attributes that occur twice are assertion errors."""
    parser = _Parser()
    parser.feed(source)
    parser.close()
    assert parser.open == []
    return parser.page


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page, self.open, self.caption = Page(), list[str](), ""
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} occurs twice"
        self.page.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows, self.caption = [], ""
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> is out of place"
        if tag == "table":
            assert self.caption not in self.page.tables, self.caption
            self.page.tables[self.caption] = self.rows

    def handle_data(self, data: str) -> None:
        match self.open[-1] if self.open else "":
            case "script":
                self.page.scripts.append(data)
                return
            case "style":
                self.page.styles.append(data)
                return
        self.page.text += data
        if "caption" in self.open:
            self.caption += data
        elif {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
