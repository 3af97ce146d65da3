"""`prelabel info`."""

import json
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import tyro

from prelabel.connection import Connection
from prelabel.describe import describe, to_text

HELP = """Says what a model bundle, a directory of predictions or a server is.

For example:
    prelabel info runs/mnist/bundle
    prelabel info predictions --json
    prelabel info 127.0.0.1:50051

A server's bearer token comes from the environment variable PRELABEL_TOKEN."""


@dataclass(frozen=True)
class Info:
    """Options of `prelabel info`."""

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PATH|HOST:PORT")]
    """A bundle, a directory of predictions, or HOST:PORT of a server."""
    json: bool = False
    """Print one JSON object."""
    connection: Annotated[Connection, tyro.conf.arg(name="")] = field(default_factory=Connection)
    """How the server is reached."""


def execute(options: Info) -> int:
    """Does `prelabel info`."""
    fields = describe(options.what, partial(_model_of_server, options.connection))
    print(json.dumps(fields, indent=2) if options.json else to_text(fields))
    return 0


def _model_of_server(connection: Connection, address: str) -> object:
    from prelabel.client import PrelabelClient

    # A person waits for this answer.
    over_plaintext = connection.token_over_plaintext
    with PrelabelClient(
        address, tls=connection.to_tls(), token_over_plaintext=over_plaintext, retry_for_s=5.0
    ) as client:
        return client.model()
