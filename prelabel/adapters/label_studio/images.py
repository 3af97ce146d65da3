"""The address of a task's image -> its bytes, from known places only, within limits.

Whoever can make tasks decides what addresses they hold. So this is no way to make this machine fetch what that person
cannot: files come from one folder, other machines are those that the operator named, and redirects are not followed.
"""

import base64
import urllib.parse
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prelabel.adapters.label_studio.session import Session, fetch, require_urllib3
from prelabel.errors import ImageError, InputError

LOCAL_FILES = "/data/local-files/"
"""Where Label Studio serves files of its machine; https://labelstud.io/guide/storage#Local-storage"""
UPLOADS = "/data/"
"""Where it serves what was uploaded to it."""


@dataclass(frozen=True)
class Places:
    """Where images may come from."""

    local_files: Path | None = None
    """Folder that Label Studio serves as /data/local-files/."""
    hosts: Collection[str] = ()
    """`HOST` (at its usual port) or `HOST:PORT` of web servers, in lower case."""
    session: Session | None = None
    """Label Studio itself, for uploaded images."""
    max_bytes: int = 16 << 20
    """Largest image file."""
    timeout_s: float = 10.0
    """Longest time for one image."""


class Images:
    """Gets images from the places where they may come from; safe to use from several threads."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._pool: Any = require_urllib3().PoolManager(retries=False, maxsize=16) if places.hosts else None

    def get(self, address: object) -> bytes:
        """Returns the bytes of the image at an address.

        Raises:
            ImageError: It is not there, too large, too slow, or not from one of the places.
        """
        if not isinstance(address, str):
            raise ImageError(f"the task's image is {type(address).__name__} and no address")
        if address.startswith("data:"):
            return self._within(_decoded(address))
        try:
            parts = urllib.parse.urlsplit(address)
        except ValueError:
            raise ImageError(f"{_shown(address)} is no address") from None
        if parts.path.startswith(LOCAL_FILES) and self._places.local_files is not None:
            return self._local(urllib.parse.parse_qs(parts.query).get("d", [""])[0])
        if parts.scheme in ("http", "https"):
            self._check_host(address)
            return self._named(address, fetch, self._pool, address, {}, self._places.max_bytes, self._places.timeout_s)
        if not parts.scheme and parts.path.startswith(UPLOADS) and self._places.session is not None:
            download = self._places.session.download
            path = urllib.parse.urlunsplit(("", "", *parts[2:]))
            return self._named(address, download, path, self._places.max_bytes, self._places.timeout_s)
        raise ImageError(
            f"{_shown(address)} cannot be fetched: give --local-files for {LOCAL_FILES}..., --url for uploaded images, "
            "--allow-host for http://..."
        )

    def _check_host(self, address: str) -> None:
        # By the parser of the library that fetches: others find another host in http://one\@other/.
        urllib3 = require_urllib3()
        try:
            url = urllib3.util.parse_url(address)
        except urllib3.exceptions.LocationParseError:
            raise ImageError(f"{_shown(address)} is no address") from None
        place = url.host if url.port is None else f"{url.host}:{url.port}"
        if place not in self._places.hosts:
            raise ImageError(f"{_shown(address)}: host {place} is not allowed (--allow-host)")

    def _local(self, name: str) -> bytes:
        assert self._places.local_files is not None
        root = self._places.local_files.resolve()
        try:
            path = (root / name).resolve()
            if not path.is_relative_to(root):
                raise ImageError(f"{_shown(name)} lies outside of --local-files {root}")
            if not path.is_file():
                raise ImageError(f"{path} is not there, or no file")
            with path.open("rb") as file:
                return self._within(file.read(self._places.max_bytes + 1))
        except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, a loop of links
            raise ImageError(f"{_shown(name)} cannot be read: {' '.join(str(error).split())}") from None

    def _within(self, data: bytes) -> bytes:
        if len(data) > self._places.max_bytes:
            raise ImageError(f"is larger than {self._places.max_bytes:,} bytes")
        return data

    def _named(self, address: str, get: Any, *arguments: Any) -> bytes:
        try:
            data: bytes = get(*arguments)
            return data
        except ImageError as error:
            raise ImageError(f"{_shown(address)} {error}") from None


def parse_hosts(text: str) -> frozenset[str]:
    """Returns the hosts that `--allow-host` names.

    Raises:
        InputError: One is an address and not HOST or HOST:PORT.
    """
    hosts = frozenset(filter(None, text.lower().split(",")))
    if wrong := [host for host in hosts if "/" in host]:
        raise InputError(f"--allow-host {wrong[0]} is not usable: HOST or HOST:PORT is wanted, with commas between")
    return hosts


def _decoded(address: str) -> bytes:
    head, _, body = address.partition(",")
    try:
        return (
            base64.b64decode(body, validate=True) if head.endswith(";base64") else urllib.parse.unquote_to_bytes(body)
        )
    except ValueError:  # of base64, of what is no ASCII, and of halves of characters
        raise ImageError("the task's data: address holds no base64, or no ASCII") from None


def _shown(address: str) -> str:
    return repr(address if len(address) <= 120 else address[:120] + "...")
