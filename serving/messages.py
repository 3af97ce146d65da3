"""Bytes from strangers to request messages.

What would grow out of proportion is refused before it is parsed: a parsed field of two bytes takes up to a hundred, so
that a message of 64 MiB could take gigabytes, and seconds of the event loop.
"""

import functools
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor

from serving.model import MAX_REQUEST_IMAGES

MAX_FIELDS = 4 * MAX_REQUEST_IMAGES
"""Most fields of a message, those of messages in it and packed numbers included. A request has one for each file and a
few more; whoever sends somewhat too many images still hears from the service how many it takes."""

_SMALL_BYTES = 256 << 10
"""Messages up to this size cannot hold enough fields to harm: they are not looked at."""

_PIXELS = "inference.InferTensorContents.uint_contents"
"""Packed numbers of which a request may hold as many as it has pixels: they grow to the fourfold."""

_Plan = dict[int, "_Plan | None"]
"""By number the fields that hold more than themselves: messages with their own plan, packed numbers with None."""


class Unreadable:
    """Stands for bytes that are not taken for a request: gRPC would answer with the parser's exception."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        """Goes on after a word for what was sent, such as "the bytes sent"."""


def reader(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Returns what parses messages as `parse`, the `FromString` of their class, or returns `Unreadable`."""
    plan = _plan(parse.__self__.DESCRIPTOR)  # type: ignore[attr-defined]

    def read(message: bytes) -> Any:
        try:
            if len(message) > _SMALL_BYTES and _left(message, 0, len(message), plan, MAX_FIELDS) < 0:
                return Unreadable(
                    f"hold more than {MAX_FIELDS} fields (at most {MAX_REQUEST_IMAGES} images make a request)"
                )
            return parse(message)
        except Exception:  # whatever a parser raises over bytes from strangers
            return Unreadable("are no request message")

    return read


@functools.cache
def _plan(kind: Descriptor) -> _Plan:
    plan: _Plan = {}
    for field in kind.fields:
        if field.message_type is not None:
            plan[field.number] = _plan(field.message_type)
        elif field.is_packed and field.full_name != _PIXELS:
            plan[field.number] = None
    return plan


def _left(message: bytes, position: int, end: int, plan: _Plan, left: int) -> int:
    """Returns how many fields may follow those in message[position:end]; negative: too many, the rest is not counted.

    Raises:
        IndexError, ValueError: That is no message.
    """
    while position < end and left >= 0:
        left -= 1
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 2:
            size, position = _varint(message, position)
            stop = position + size
            if stop > end:
                raise ValueError("a field that is longer than its message")
            if (inner := plan.get(tag >> 3, plan)) is None:
                left -= size
            elif inner is not plan:
                left = _left(message, position, stop, inner, left)
            position = stop
        elif kind == 0:
            _, position = _varint(message, position)
        elif kind == 1:
            position += 8
        elif kind == 5:
            position += 4
        # What is left begins or ends a group: no message here has one, the parser skips them.
    return left


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Returns a number and the position after it."""
    byte = message[position]
    value = byte & 127
    shift = 7
    while byte > 127:
        if shift > 63:
            raise ValueError("a number of more than ten bytes")
        position += 1
        byte = message[position]
        value |= (byte & 127) << shift
        shift += 7
    return value, position + 1
