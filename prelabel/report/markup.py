"""Pieces of HTML that several sections are made of. What is called HTML here is inserted as it is; see `text`."""

from collections.abc import Mapping, Sequence
from typing import Any

from prelabel.report.text import name, text, value


def section(key: str, title: str, *parts: str) -> str:
    """Returns a part of the page with a heading; `key` is its id, `parts` are HTML."""
    return (
        f'<section id="{key}" aria-labelledby="{key}-heading"><h2 id="{key}-heading">{text(title)}</h2>'
        f"{''.join(parts)}</section>"
    )


def paragraph(content: str) -> str:
    """Returns text as a paragraph."""
    return f"<p>{text(content)}</p>"


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table that scrolls sideways where it is too wide.

    Args:
        title: Its caption, and the name of the part that scrolls.
        header: Names of the columns.
        rows: HTML of the cells; the first of each row is its heading.
    """
    heads = "".join(f'<th scope="col">{text(one)}</th>' for one in header)
    lines = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'
        for first, *others in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(title)}"><table>'
        f"<caption>{text(title)}</caption><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def details(summary: str, content: str) -> str:
    """Returns HTML that is folded away behind a text."""
    return f"<details><summary>{text(summary)}</summary>{content}</details>"


def figure(drawing: str, caption: str, numbers: str) -> str:
    """Returns a drawing (SVG) with its caption (text) and, folded away, its numbers (HTML)."""
    return f"<figure>{drawing}<figcaption>{text(caption)}</figcaption>{details('Numbers', numbers)}</figure>"


def fields(content: Mapping[str, Any]) -> str:
    """Returns the fields of a JSON object as a list of terms; objects within it are lists of their own."""
    lines = "".join(f"<dt>{name(key)}</dt><dd>{_field(item)}</dd>" for key, item in content.items())
    return f"<dl>{lines}</dl>"


def _field(item: Any) -> str:
    if isinstance(item, Mapping):
        return fields(item) if item else "none"
    if isinstance(item, list | tuple):
        if any(isinstance(one, Mapping) for one in item):
            return "".join(fields(one) if isinstance(one, Mapping) else value(one) for one in item)
        return ", ".join(value(one) for one in item) or "none"
    return value(item)
