"""Bearer tokens: who may call, and with which role.

    # comments and empty lines are skipped
    alice:Zm9vYmFyYmF6cXV4MDEyMw
    alice:bmV3ZXIgdG9rZW4gb2YgQQ      a second token of the same caller: both work, until the old one is removed
    ops:c2VjcmV0IG9mIG9wcyBvbg:admin
    YW5vbnltb3VzIGJ1dCBzZWNyZXQ       a token without a name

Tokens appear in no message and no log line; entries are named by their line.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prelabel.channel import TOKEN
from prelabel.errors import InputError
from serving.watched import Watched, readable_by_others

TOKENS_VARIABLE = "PRELABEL_TOKENS"
"""Environment variable with the entries of a token file, separated by commas or line breaks."""

MAX_TOKENS = 256
"""Every call is compared with all of them."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Principal:
    """A caller whom a token proves."""

    name: str
    """Its name in the token file, or the line of a token without one."""
    admin: bool = False
    """May call the services of operators."""


@dataclass(frozen=True)
class Tokens:
    """The tokens in force. Only their hashes are kept, so that no dump or repr can show them."""

    entries: tuple[tuple[bytes, Principal], ...] = field(repr=False)
    """(SHA-256 of the token, its caller)."""

    def find(self, token: str) -> Principal | None:
        """Returns whose token it is, or None; takes as long whatever the token is."""
        given = hashlib.sha256(token.encode()).digest()
        found = None
        for digest, principal in self.entries:
            if hmac.compare_digest(digest, given):
                found = principal
        return found


def parse_tokens(lines: Iterable[str], source: str) -> Tokens:
    """Reads `token`, `name:token` and `name:token:admin` entries.

    Raises:
        InputError: An entry is none of these, a token is given twice, or there are none or too many. The message names
            the source and the line, never what stands there.
    """
    entries: dict[bytes, Principal] = {}
    for number, line in enumerate(lines, 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        where = f"{source}, line {number}"
        name, token, admin = _fields(entry, where, f"line {number}")
        digest = hashlib.sha256(token.encode()).digest()
        if digest in entries:
            raise InputError(f"{where}: this token is there twice; remove one")
        entries[digest] = Principal(name, admin)
    if not 1 <= len(entries) <= MAX_TOKENS:
        raise InputError(f"{source} holds {len(entries)} tokens: 1 to {MAX_TOKENS} wanted, one a line")
    return Tokens(tuple(entries.items()))


def _fields(entry: str, where: str, unnamed: str) -> tuple[str, str, bool]:
    roles: list[str] = []
    match entry.split(":"):
        case [token]:
            name = unnamed
        case [name, token, *roles]:
            if not _NAME.fullmatch(name):
                raise InputError(f"{where}: the name is not usable: 1 to 64 letters, digits or ._- wanted")
    if roles not in ([], ["admin"]):
        raise InputError(f"{where}: `token`, `name:token` or `name:token:admin` wanted")
    if not TOKEN.fullmatch(token):
        raise InputError(f"{where}: the token is not usable: 16 to 512 letters, digits or ._~+/- wanted")
    return name, token, bool(roles)


def parse_bearer(values: Sequence[str | bytes]) -> str | None:
    """Returns the token of a call's `authorization` metadata (`Bearer TOKEN`); None where it holds no single one."""
    if len(values) != 1 or not isinstance(values[0], str):
        return None
    scheme, _, token = values[0].partition(" ")
    token = token.strip(" ")
    return token if scheme.lower() == "bearer" and TOKEN.fullmatch(token) else None


def watch_tokens(file: Path | None, environment: Mapping[str, str]) -> Watched[Tokens] | None:
    """Returns the tokens of a file or of the environment; None where there is neither, and everybody may call.

    Raises:
        InputError: Both are given, or what is given cannot be used or can be read by every user of this machine.
    """
    text = environment.get(TOKENS_VARIABLE)
    if text is not None:
        if file is not None:
            raise InputError(f"tokens come from --token-file {file} or from {TOKENS_VARIABLE}, not from both")
        return Watched([], lambda: parse_tokens(text.replace(",", "\n").splitlines(), TOKENS_VARIABLE))
    return None if file is None else Watched([file], lambda: _read(file))


def _read(file: Path) -> Tokens:
    try:
        if readable_by_others(file):
            raise InputError(f"the token file {file} may be read by every user: chmod o-rw {file}")
        lines = file.read_text().splitlines()
    except OSError as error:
        raise InputError(f"the token file {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"the token file {file} is no UTF-8 text") from None
    return parse_tokens(lines, str(file))
