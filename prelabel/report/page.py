"""The page around the sections: one file that asks for nothing and runs nothing but its own script."""

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from string import Template

from prelabel.report.text import name, text

_HEADING = re.compile(r'<section id="([^"]+)"[^>]*><h2[^>]*>(.*?)</h2>')


def make_page(title: str, subtitle: str, sections: Sequence[str], footer: str) -> str:
    """Returns the whole page.

    Its Content-Security-Policy forbids every request and every script and style but the two in the page, which it
    knows by their hashes: should a name ever get through unescaped, it could do nothing.

    Args:
        title: Plain text.
        subtitle: Plain text.
        sections: HTML from `prelabel.report.markup.section`.
        footer: Plain text.
    """
    assets = files("prelabel.report") / "assets"
    template, style, script = (
        (assets / file).read_text(encoding="utf-8") for file in ("page.html", "style.css", "script.js")
    )
    headings = [match.groups() for one in sections if (match := _HEADING.match(one))]
    links = "".join(f'<li><a href="#{key}">{heading}</a></li>' for key, heading in headings)
    return Template(template).substitute(
        policy=(
            "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
            f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
        ),
        title=text(title),
        heading=name(title),
        subtitle=name(subtitle),
        style=style,
        script=script,
        links=links,
        sections="\n".join(sections),
        footer=name(footer),
    )


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
