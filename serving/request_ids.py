"""The id under which a call's log lines, errors and traces are found: the caller's own, or one made up here."""

import re
import secrets
from collections.abc import Mapping
from contextvars import ContextVar

REQUEST_ID_KEY = "x-request-id"
"""Metadata key, in requests and in the trailing metadata of every answer."""

REQUEST_ID: ContextVar[str | None] = ContextVar("REQUEST_ID", default=None)
"""The id of the call that this task works for."""

# Goes into log lines and back to the caller: nothing that a terminal, a log parser or a header would trip over.
_SANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}", re.ASCII)


def choose_request_id(metadata: Mapping[str, str | bytes]) -> str:
    """Returns the caller's id where it gave one of up to 128 harmless characters, else 32 random hexadecimal digits."""
    given = metadata.get(REQUEST_ID_KEY)
    if isinstance(given, str) and _SANE.fullmatch(given):
        return given
    return secrets.token_hex(16)
