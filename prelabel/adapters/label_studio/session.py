"""HTTP to a Label Studio: tokens, tries, and errors that say what to do. Nothing here knows what is sent."""

import json
import logging
import re
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prelabel.adapters.label_studio.token import TOKEN_VARIABLE, Token
from prelabel.errors import AccessError, ImageError, InputError, PrelabelError, RemoteError, ServerUnavailableError
from prelabel.retry import Backoff
from prelabel.tls import is_loopback

CONNECT_TIMEOUT_S = 10.0
DETAIL_CHARACTERS = 400
"""Longest part of an answer that an error message repeats."""
PASSING = frozenset({0, 408, 429, *range(500, 600)} - {501, 505})
"""Statuses that may be gone at the next try; 0: no answer came. Proxies have further ones, such as 520 to 524."""
NOT_DONE = frozenset({401, 403, 413, 429})
"""Statuses of requests that were turned away before anything was done."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What came of one request."""

    status: int
    """HTTP status; 0 where no answer came."""
    content: Any
    """The parsed JSON; None where there is none."""
    detail: str
    """What went wrong, in one line; empty where nothing did."""
    retry_after_s: float = 0.0
    """How long the server asks to stay away."""
    maybe_done: bool = True
    """Whether the request, if it failed, may have been done all the same."""

    @property
    def ok(self) -> bool:
        """Whether the request was done and answered in JSON."""
        return not self.detail


class Session:
    """A Label Studio at an address, opened by a token.

    Args:
        url: Its address, such as https://label-studio.example.com; a path is kept.
        token: What opens it.
        timeout_s: Longest wait for an answer: an import of 1,000 tasks takes seconds, on a busy server a minute.
        retry_for_s: For how long, since the first failure, a request is tried again.
        sleep: Replaces `time.sleep` between tries.
        clock: Replaces `time.monotonic`.

    Raises:
        InputError: The address cannot be one, or urllib3 is not installed.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        timeout_s: float = 120.0,
        retry_for_s: float = 60.0,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.urllib3 = require_urllib3()
        self.url = _checked_url(url)
        self._token, self._sleep, self._clock, self._retry_for_s = token, sleep, clock, retry_for_s
        timeout = self.urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=timeout_s)
        # No redirect is followed: it would take the token along.
        # As many connections as the backend has threads that fetch images.
        self._pool = self.urllib3.PoolManager(timeout=timeout, retries=False, maxsize=16)

    def pause(self, seconds: float) -> None:
        """Waits."""
        self._sleep(seconds)

    def backoff(self) -> Backoff:
        """Returns the pauses between the tries of one operation."""
        return Backoff(self._retry_for_s, self._clock)

    def send(self, method: str, path: str, body: object = None, query: Mapping[str, str] | None = None) -> Answer:
        """Tries a request once, with a fresh access token where the token is a personal one."""
        answer = self._authorized(method, path, body, query)
        if answer.status == 401 and self._token.is_personal:
            # It may have run out on the way. A request that is refused was not done.
            self._token.forget()
            answer = self._authorized(method, path, body, query)
        return answer

    def ask(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Reads something, tries again where that may help, and returns the JSON.

        Raises:
            AccessError: The token is refused.
            InputError: It does not exist, or the address is another one.
            ServerUnavailableError: Nobody answers.
            RemoteError: What answers fails or is no Label Studio.
        """
        backoff = self.backoff()
        while True:
            answer = self.send("GET", path, query=query)
            if answer.ok:
                return answer.content
            pause_s = backoff.next_pause_s(answer.retry_after_s) if answer.status in PASSING else None
            if pause_s is None:
                raise self.error(answer)
            if backoff.failures == 1:
                logger.warning("%s; trying again", self.error(answer))
            self.pause(pause_s)

    def download(self, path: str, max_bytes: int, timeout_s: float) -> bytes:
        """Returns a file that Label Studio serves.

        Raises:
            ImageError: It cannot be had, or is larger than `max_bytes`.
        """
        if (header := self._token.header()) is None and not (answer := self._buy()).ok:
            raise ImageError(str(self.error(answer)))
        header = header or self._token.header() or ""
        return fetch(self._pool, self.url + path, {"Authorization": header}, max_bytes, timeout_s)

    def error(self, answer: Answer) -> PrelabelError:
        """Returns the error that an answer means."""
        status, detail = answer.status, answer.detail
        if status == 0:
            return ServerUnavailableError(f"no Label Studio answers at {self.url}: {detail}")
        if status in (401, 403):
            return AccessError(
                f"{self.url} refuses the token in {TOKEN_VARIABLE} ({status}: {detail}): make a new one under Account "
                "& Settings; legacy tokens must be allowed in the organization's settings"
            )
        if 300 <= status < 400:
            return InputError(f"{self.url} answers with a redirect ({detail}): give the address behind it as --url")
        if status in (400, 404) and answer.content is not None:
            return InputError(f"Label Studio at {self.url} refuses this ({status}): {detail}")
        if status == 413:
            return InputError(f"{self.url}, or a proxy before it, takes no request as large as one task: {detail}")
        return RemoteError(f"{self.url} answered status {status}: {detail}")

    def _authorized(self, method: str, path: str, body: object, query: Mapping[str, str] | None) -> Answer:
        if self._token.header() is None and not (answer := self._buy()).ok:
            return answer
        return self._transfer(method, path, body, query, self._token.header())

    def _buy(self) -> Answer:
        answer = self._transfer("POST", "/api/token/refresh", self._token.purchase(), None, None)
        if answer.ok:
            if not isinstance(answer.content, dict) or not isinstance(answer.content.get("access"), str):
                return Answer(answer.status, None, "the answer to /api/token/refresh holds no access token")
            self._token.bought(answer.content["access"])
        return answer

    def _transfer(
        self, method: str, path: str, body: object, query: Mapping[str, str] | None, authorization: str | None
    ) -> Answer:
        url = self.url + path + ("?" + urllib.parse.urlencode(query) if query else "")
        headers = {"Accept": "application/json"}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        if authorization is not None:
            headers["Authorization"] = authorization
        try:
            response = self._pool.request(method, url, body=data, headers=headers, redirect=False)
        except self.urllib3.exceptions.HTTPError as error:
            kinds = self.urllib3.exceptions
            unsent = isinstance(error, kinds.NewConnectionError | kinds.ConnectTimeoutError | kinds.NameResolutionError)
            return Answer(0, None, _reason(error), maybe_done=not unsent)
        return _answer(response)


def require_urllib3() -> Any:
    """Returns the module `urllib3`.

    Raises:
        InputError: It is not installed.
    """
    try:
        import urllib3
    except ImportError:
        raise InputError("Label Studio is reached with urllib3: pip install 'prelabel[label-studio]'") from None
    return urllib3


def fetch(pool: Any, url: str, headers: Mapping[str, str], max_bytes: int, timeout_s: float) -> bytes:
    """Returns what lies at a URL, without following redirects.

    Args:
        pool: A `urllib3.PoolManager`.
        url: The address.
        headers: Sent along.
        max_bytes: Largest answer that is read.
        timeout_s: Longest time for all of it.

    Raises:
        ImageError: It cannot be had within these limits.
    """
    urllib3 = require_urllib3()
    ends_s = time.monotonic() + timeout_s
    try:
        response = pool.request(
            "GET", url, headers=headers, redirect=False, preload_content=False, timeout=timeout_s, retries=False
        )
        try:
            if response.status != 200:
                raise ImageError(f"answered {response.status}")
            data = bytearray()
            for piece in response.stream(1 << 16):
                data += piece
                if len(data) > max_bytes:
                    raise ImageError(f"is larger than {max_bytes:,} bytes")
                if time.monotonic() > ends_s:
                    raise ImageError(f"did not arrive within {timeout_s:g} s")
            return bytes(data)
        finally:
            response.close()
    except urllib3.exceptions.HTTPError as error:
        raise ImageError(f"cannot be fetched: {_reason(error)}") from None


def _checked_url(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not parts.hostname:
        raise InputError(f"--url {url} is no address: http://HOST:PORT or https://HOST is wanted")
    if parts.username is not None or parts.query or parts.fragment:
        raise InputError(
            f"--url http://{parts.hostname}... must be an address alone, without user name, `?` or `#`; a token "
            f"belongs into {TOKEN_VARIABLE}"
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        logger.warning("the token goes to %s unencrypted, where others can read it: https is safer", parts.netloc)
    return url.rstrip("/")


def _answer(response: Any) -> Answer:
    status, kind = response.status, response.headers.get("content-type", "no content type").partition(";")[0]
    after = response.headers.get("retry-after", "")
    retry_after_s = float(after) if after.isdecimal() else 0.0
    if 300 <= status < 400:
        return Answer(status, None, f"{status} to {response.headers.get('location', 'nowhere')}")
    try:
        content = json.loads(response.data)
    except ValueError:
        detail = f"{kind} instead of JSON"
        if status < 500:
            detail += "; is this the address of a Label Studio, or does a proxy or a login page stand before it?"
        return Answer(status, None, detail, retry_after_s, status not in NOT_DONE)
    detail = "" if 200 <= status < 300 else _detail(content) or "no reason given"
    return Answer(status, content, detail, retry_after_s, status not in NOT_DONE)


def _detail(content: Any) -> str:
    """Returns the reasons in an error of Label Studio as one line."""
    if isinstance(content, dict):
        reasons = [content.get("detail"), content.get("validation_errors")]
        text = "; ".join(str(reason) for reason in reasons if reason)
    else:
        text = str(content)
    line = " ".join(text.split())
    return line if len(line) <= DETAIL_CHARACTERS else f"{line[:DETAIL_CHARACTERS]} ..."


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    text = " ".join("; ".join(map(str, cause.args)).split()) or type(cause).__name__
    # urllib3 puts the connection in front.
    return re.sub(r"^HTTPS?Connection\w*\(.*?\): ", "", text)
