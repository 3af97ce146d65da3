"""Text of any origin as HTML: class names, file names and messages are not trusted.

Nothing else in the package writes a value into the page: numbers go through `number` and `percent`, all the rest
through `text`, `name` or `attribute`.
"""

import html
import math
import re

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ISOLATE, _END_ISOLATE = "\u2068", "\u2069"
UNKNOWN = "\u2013"
"""What stands for a missing value."""


def text(value: object) -> str:
    """Returns a value as element content; control characters, which HTML may not hold, become U+FFFD."""
    # JSON can carry lone surrogates, which UTF-8 cannot.
    encodable = str(value).encode("utf-8", "backslashreplace").decode()
    return html.escape(_CONTROLS.sub("\ufffd", encodable))


def name(value: object) -> str:
    """Returns a name as element content whose writing direction ends with it: it may hold right-to-left overrides."""
    return f"<bdi>{text(value)}</bdi>"


def attribute(value: object) -> str:
    """Returns a name for an attribute in double quotes, or SVG text; its writing direction ends with it, too."""
    return f"{_ISOLATE}{text(value)}{_END_ISOLATE}"


def number(value: int) -> str:
    """Returns an integer with separators."""
    return f"{value:,}"


def percent(share: float | None, digits: int = 2) -> str:
    """Returns a share, 0..1, as per cent; a dash where there is none."""
    return UNKNOWN if share is None or math.isnan(share) else f"{100 * share:.{digits}f}\u00a0%"


def value(item: object) -> str:
    """Returns a value of a JSON file as element content: numbers as people write them, everything else as it is."""
    match item:
        case None:
            return UNKNOWN
        case bool():
            return "yes" if item else "no"
        case int():
            return number(item)
        case float():
            return f"{item:.6g}"
        case _:
            return name(item)
