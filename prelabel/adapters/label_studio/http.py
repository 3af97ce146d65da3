"""The backend's HTTP: five routes that carry JSON.

The standard library's server does for it: one Label Studio calls, a few requests at a time, and a framework would bring
a dozen packages for five routes.
"""

import base64
import hmac
import json
import logging
import secrets
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prelabel.adapters.label_studio.backend import Backend
from prelabel.errors import InputError

MAX_BODY_BYTES = 256 << 20
"""Largest request: as much as Label Studio itself takes in one, DATA_UPLOAD_MAX_MEMORY_SIZE."""
IDLE_S = 60.0
"""A connection on which nothing comes for so long is closed."""

logger = logging.getLogger(__name__)


class BackendServer(ThreadingHTTPServer):
    """Serves a backend, each connection in a thread.

    Args:
        address: Host and port; port 0 takes a free one.
        backend: What answers.
        credentials: `user:password` of basic authentication; empty for none.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], backend: Backend, credentials: str) -> None:
        self.backend = backend
        self.authorization = f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else ""
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            raise InputError(f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}") from None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error of ours."""
        logger.debug("connection from %s ended early", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: the second would wait for the caller's ACK
    timeout = IDLE_S
    server: BackendServer

    def do_GET(self) -> None:
        if self._admitted():
            if self.path.split("?")[0] in ("/", "/health"):
                self._answer(200, self.server.backend.health())
            else:
                self._answer(404, {"error": "GET /health is answered here"}, "Not Found")

    def do_POST(self) -> None:
        if not self._admitted() or (body := self._body()) is None:
            return
        backend = self.server.backend
        routes: dict[str, Callable[[dict[str, Any]], Any]] = {
            "/setup": backend.setup,
            "/predict": backend.predict,
            "/webhook": backend.webhook,
        }
        if (route := routes.get(self.path.split("?")[0])) is None:
            self._answer(404, {"error": f"POST {', '.join(routes)} are answered here"}, "Not Found")
            return
        try:
            content = json.loads(body)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            self._answer(400, {"error": "a JSON object is wanted"}, "Bad Request")
            return
        try:
            answer = route(content)
        except InputError as error:
            logger.warning("%s: %s", self.path, error)
            # Label Studio shows its user the status line, and not the body.
            self._answer(400, {"error": str(error)}, str(error))
        except Exception:
            number = secrets.token_hex(4)
            logger.exception("error %s in %s", number, self.path)
            self._answer(500, {"error": f"internal error {number}, see the log"}, f"Internal Error {number}")
        else:
            self._answer(200, answer)

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            self._answer(413, {"error": f"a body of at most {MAX_BODY_BYTES} bytes is wanted"}, "Content Too Large")
            return None
        return self.rfile.read(int(length))

    def _admitted(self) -> bool:
        wanted = self.server.authorization
        given = self.headers.get("Authorization", "")
        if not wanted or hmac.compare_digest(given.encode(), wanted.encode()):
            return True
        self.close_connection = True  # what it sends is not read
        self._answer(401, {"error": "user name or password is wrong"}, "Unauthorized")
        return False

    def _answer(self, status: int, content: object, reason: str = "OK") -> None:
        data = json.dumps(content).encode()
        self.send_response(status, "".join(c if " " <= c <= "~" else "?" for c in reason)[:500])
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="prelabel"')
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        logger.debug(format, *arguments)
