"""`prelabel backend`."""

import logging
import os
import signal
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from prelabel.adapters.label_studio.backend import Backend
from prelabel.adapters.label_studio.http import BackendServer
from prelabel.adapters.label_studio.images import Images, Places, parse_hosts
from prelabel.adapters.label_studio.session import Session
from prelabel.adapters.label_studio.stored import load_stored
from prelabel.adapters.label_studio.token import TOKEN_VARIABLE, Token
from prelabel.adapters.rows import Predictions
from prelabel.connection import Connection
from prelabel.errors import InputError
from prelabel.tls import is_loopback

HELP = """Answers an annotation tool that asks for predictions itself.

For example, from predictions, and from a server for images that have none:
    prelabel backend label-studio --predictions predictions
    prelabel backend label-studio --predictions predictions --server 127.0.0.1:50051 --local-files /srv/images

Then add http://HOST:9090 to the project under Settings > Model. Where all predictions are made already, pushing them is
many times faster. Runs until SIGTERM or Ctrl-C.

PRELABEL_BACKEND_AUTH=USER:PASSWORD in the environment asks for basic authentication; a prelabel server's bearer token
comes from PRELABEL_TOKEN, and Label Studio's, for images that were uploaded to it, from LABEL_STUDIO_API_KEY."""

AUTH_VARIABLE = "PRELABEL_BACKEND_AUTH"
CALL_TIMEOUT_S = 25.0
"""Longest wait for the prelabel server: with the backend's budget of 60 s it stays inside Label Studio's 100 s."""
RETRY_FOR_S = 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServeBackend:
    """Options of `prelabel backend`."""

    tool: Annotated[Literal["label-studio"], tyro.conf.Positional]
    """The annotation tool."""
    predictions: Path | None = None
    """Output directory of `prelabel run`: answers from there, by the task's uid."""
    server: str | None = None
    """HOST:PORT of a prelabel server, for all other tasks."""
    connection: Annotated[Connection, tyro.conf.arg(name="")] = field(default_factory=Connection)
    """How the server is reached."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all, for a Label Studio on another machine."""
    port: int = 9090
    """Port to listen on, Label Studio's usual one; 0 takes a free one."""
    local_files: Path | None = None
    """Folder that Label Studio serves as /data/local-files/ (its LOCAL_FILES_DOCUMENT_ROOT), to read images from."""
    allow_host: Annotated[str, tyro.conf.arg(metavar="HOST[:PORT],...")] = ""
    """Web servers that images may be fetched from; from no others, whatever a task says."""
    url: str = ""
    """Address of Label Studio, to fetch images that were uploaded to it."""
    choices: str = ""
    """Name of the <Choices> that asks for the class, where the labelling interface has several about an image."""
    max_image_bytes: int = 16 << 20
    """Largest image file that is fetched."""
    image_timeout_s: float = 10.0
    """Longest time for fetching one image."""


def execute(options: ServeBackend) -> int:
    """Does `prelabel backend`."""
    credentials = os.environ.get(AUTH_VARIABLE, "")
    if credentials and not all(credentials.partition(":")[::2]):
        raise InputError(f"{AUTH_VARIABLE} is not usable: USER:PASSWORD is wanted")
    if not credentials and not is_loopback(options.host):
        logger.warning("everybody who reaches %s may ask: set %s=USER:PASSWORD", options.host, AUTH_VARIABLE)
    if options.local_files is not None and not options.local_files.is_dir():
        raise InputError(f"--local-files {options.local_files} is no folder")
    session = Session(options.url, Token(os.environ.get(TOKEN_VARIABLE, ""))) if options.url else None
    places = Places(
        options.local_files, parse_hosts(options.allow_host), session, options.max_image_bytes, options.image_timeout_s
    )
    stored = None if options.predictions is None else load_stored(Predictions(options.predictions))
    with ExitStack() as stack:
        client = None
        if options.server is not None:
            from prelabel.client import PrelabelClient

            client = stack.enter_context(
                PrelabelClient(
                    options.server,
                    tls=options.connection.to_tls(),
                    token_over_plaintext=options.connection.token_over_plaintext,
                    timeout_s=CALL_TIMEOUT_S,
                    retry_for_s=RETRY_FOR_S,
                )
            )
        backend = Backend(stored, client, Images(places), choices=options.choices)
        stack.callback(backend.close)
        server = stack.enter_context(BackendServer((options.host, options.port), backend, credentials))
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"answering at http://{options.host}:{server.server_port}", flush=True)
        stop.wait()
        server.shutdown()
    return 0
