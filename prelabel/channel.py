"""Opening a gRPC channel: encrypted or not, with a bearer token or without."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import grpc
import grpc.aio

from prelabel.errors import InputError
from prelabel.tls import Tls, is_loopback

TOKEN_VARIABLE = "PRELABEL_TOKEN"
"""Environment variable with the client's bearer token."""

TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,512}={0,2}")
"""What a bearer token looks like (RFC 6750, which forbids `:` and blanks). Below 16 characters it can be guessed."""

Metadata = tuple[tuple[str, str], ...]


Options = Iterable[tuple[str, object]]


@dataclass(frozen=True)
class Recipe:
    """What a channel to one server is made of, for `grpc` and for `grpc.aio`."""

    address: str
    """`HOST:PORT`."""
    options: tuple[tuple[str, object], ...]
    """gRPC's channel options."""
    credentials: grpc.ChannelCredentials | None
    """Whom to trust and who the client is; None: not encrypted."""

    def open(self) -> grpc.Channel:
        """Returns a channel for threads; it connects when it is used."""
        if self.credentials is None:
            return grpc.insecure_channel(self.address, options=self.options)
        return grpc.secure_channel(self.address, self.credentials, options=self.options)

    def open_aio(self) -> grpc.aio.Channel:
        """Returns a channel of the running event loop; it connects when it is used."""
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.address, options=self.options)
        return grpc.aio.secure_channel(self.address, self.credentials, options=self.options)


def channel_to(address: str, options: Options, tls: Tls | None) -> Recipe:
    """Returns how a channel to `HOST:PORT` is opened.

    Raises:
        InputError: A file of `tls` cannot be used.
    """
    # What is for this machine must not leave it by way of the proxy that http_proxy names.
    direct = (("grpc.enable_http_proxy", 0),) if is_loopback(address.rpartition(":")[0]) else ()
    if tls is None:
        return Recipe(address, (*options, *direct), None)
    tls.check()
    ca, key, certificate = (None if path is None else path.read_bytes() for path in (tls.ca, tls.key, tls.certificate))
    name = () if tls.server_name is None else (("grpc.ssl_target_name_override", tls.server_name),)
    return Recipe(address, (*options, *direct, *name), grpc.ssl_channel_credentials(ca, key, certificate))


def open_channel(address: str, options: Options, tls: Tls | None) -> grpc.Channel:
    """Returns a channel to `HOST:PORT`; it connects when it is used.

    Raises:
        InputError: As `channel_to`.
    """
    return channel_to(address, options, tls).open()


def bearer(token: str | None, address: str, tls: Tls | None, over_plaintext: bool) -> Metadata:
    """Returns the metadata that shows the token to the server at `address`; none without a token.

    Raises:
        InputError: The token cannot be one, or would leave this machine unencrypted without permission. The message
            does not hold the token.
    """
    if not token:
        return ()
    if not TOKEN.fullmatch(token):
        raise InputError(
            f"the token (argument, or {TOKEN_VARIABLE}) is not usable: 16 to 512 letters, digits or ._~+/- wanted"
        )
    if tls is None and not over_plaintext and not is_loopback(address.rpartition(":")[0]):
        raise InputError(
            f"the token would go to {address} unencrypted, where others can read it: use TLS (--tls), or allow that "
            "(--token-over-plaintext)"
        )
    return (("authorization", f"Bearer {token}"),)
