"""Where the Label Studio backend gets images from: named folders and hosts, and nowhere else."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from prelabel.adapters.label_studio.images import Images, Places, parse_hosts
from prelabel.adapters.label_studio.session import Session
from prelabel.adapters.label_studio.token import Token
from prelabel.errors import ImageError, InputError
from support.label_studio import LEGACY_TOKEN


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("/data/local-files/?d=../secret", "lies outside of --local-files"),
        ("/data/local-files/?d=/etc/passwd", "lies outside of --local-files"),
        ("/data/local-files/?d=pile/link", "lies outside of --local-files"),
        ("/data/local-files/?d=pile/%2e%2e/%2e%2e/secret", "lies outside of --local-files"),
        ("/data/local-files/?d=pile", "is not there, or no file"),
        ("/data/local-files/?d=pile/gone.png", "is not there, or no file"),
        ("/data/local-files/?d=pile/large.png", "is larger than 1,000 bytes"),
        ("http://169.254.169.254/latest/meta-data", "host 169.254.169.254 is not allowed (--allow-host)"),
        ("http://allowed:81/x.png", "host allowed:81 is not allowed"),
        ("http://allowed@evil/x.png", "host evil is not allowed"),
        ("http://evil\\@allowed/x.png", "host evil is not allowed"),
        ("http://evil\\@allowed:80/x.png", "host evil is not allowed"),
        ("/data/local-files/?d=pile/%00", "cannot be read"),
        ("/data/local-files/?d=" + "x" * 5000, "cannot be read"),
        ("file:///etc/passwd", "cannot be fetched"),
        ("s3://bucket/x.png", "cannot be fetched"),
        ("/data/upload/1/x.png", "cannot be fetched"),
        ("http://[bad/x.png", "is no address"),
        ("data:image/png;base64,!!", "holds no base64"),
        ("data:," + "x" * 1001, "is larger than 1,000 bytes"),
        (None, "is NoneType and no address"),
        (5, "is int and no address"),
    ],
)
def test_images_come_from_named_places_only(pile: Path, address: object, message: str) -> None:
    (pile.parent.parent / "secret").write_bytes(b"secret")
    link = pile / "link"
    if not link.is_symlink():
        link.symlink_to(pile.parent.parent / "secret")
    (pile / "large.png").write_bytes(bytes(1001))
    images = Images(Places(pile.parent, parse_hosts("Allowed"), max_bytes=1000))
    with pytest.raises(ImageError) as error:
        images.get(address)
    assert message in str(error.value)


@contextmanager
def web_server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match self.path:
                case "/good.png":
                    self._answer(200, b"image")
                case "/moved.png":
                    self._answer(302, b"", Location="http://169.254.169.254/")
                case "/large.png":
                    self._answer(200, bytes(5000))
                case "/data/upload/1/mine.png":
                    self._answer(200 if self.headers["Authorization"] == f"Token {LEGACY_TOKEN}" else 401, b"mine")
                case _:
                    self._answer(404, b"")

        def _answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_images_of_allowed_hosts_and_uploads() -> None:
    with web_server() as host:
        session = Session(f"http://{host}", Token(LEGACY_TOKEN))
        images = Images(Places(hosts=parse_hosts(host), session=session, max_bytes=1000))
        assert images.get(f"http://{host}/good.png") == b"image"
        assert images.get("/data/upload/1/mine.png") == b"mine"
        for name, message in (
            ("moved", "answered 302"),
            ("large", "is larger than 1,000 bytes"),
            ("gone", "answered 404"),
        ):
            with pytest.raises(ImageError, match=message):
                images.get(f"http://{host}/{name}.png")
        with pytest.raises(ImageError, match=r"cannot be fetched: .*refused"):
            Images(Places(hosts=parse_hosts("127.0.0.1:1"))).get("http://127.0.0.1:1/x.png")


def test_allowed_hosts_are_hosts() -> None:
    assert parse_hosts("") == frozenset()
    assert parse_hosts("A.example,b:80") == {"a.example", "b:80"}
    with pytest.raises(InputError, match="--allow-host http://a is not usable"):
        parse_hosts("http://a")
