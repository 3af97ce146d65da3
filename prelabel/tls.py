"""Certificate files: which ones a client uses, and whether a certificate and its key can be used at all.

gRPC says of a wrong file only that no handshake succeeds. So the files are tried here first, with Python's own TLS.
"""

import ipaddress
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from prelabel.errors import InputError


@dataclass(frozen=True)
class Tls:
    """An encrypted connection: whom the client trusts, and how it shows who it is."""

    ca: Path | None = None
    """PEM file with the certificates of the authorities that the client trusts; None: those that come with gRPC."""
    certificate: Path | None = None
    """PEM file with the client's own certificate, for servers that want one (mutual TLS)."""
    key: Path | None = None
    """PEM file with the private key of `certificate`."""
    server_name: str | None = None
    """Name to look for in the server's certificate, where that is not the host of the address."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InputError("the client's TLS certificate and its key belong together: give both, or neither")

    def check(self) -> None:
        """Tries the files.

        Raises:
            InputError: A file is missing, holds something else, has expired, or the key is another certificate's.
        """
        if self.ca is not None:
            check_authorities(self.ca)
        if self.certificate is not None and self.key is not None:
            check_pair(self.certificate, self.key, "client")


def check_authorities(path: Path) -> None:
    """Checks a PEM file of trusted authorities.

    Raises:
        InputError: It is missing, holds no certificate, or all of its authorities have expired.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _read(path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise InputError(f"{path} holds no certificate: a PEM file (BEGIN CERTIFICATE) wanted") from None
    ends = [ssl.cert_time_to_seconds(str(authority["notAfter"])) for authority in context.get_ca_certs()]
    if ends and max(ends) < time.time():
        raise InputError(f"the certificate authority in {path} has expired: make a new one")


def check_pair(certificate: Path, key: Path, side: Literal["server", "client"]) -> None:
    """Checks a PEM certificate (its chain may follow it) and its private key by a handshake inside this process.

    Raises:
        InputError: A file is missing, holds something else, has expired, is not meant for this side, or the key is
            encrypted or another certificate's.
    """
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if side == "server" else ssl.PROTOCOL_TLS_CLIENT)
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if side == "server" else ssl.PROTOCOL_TLS_SERVER)
    for context in (own, other):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _read(certificate)
    _read(key)

    def refuse() -> NoReturn:
        raise InputError(f"the private key {key} is encrypted, which gRPC cannot read: give it without a passphrase")

    try:
        own.load_cert_chain(certificate, key, password=refuse)
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in str(error) or "KEY_TYPE_MISMATCH" in str(error):
            raise InputError(f"the private key {key} is not that of the certificate {certificate}") from None
        raise InputError(
            f"{certificate} and {key} are no certificate and private key in PEM ({error.reason or error})"
        ) from None
    other.verify_mode = ssl.CERT_REQUIRED
    # The certificate is trusted as it is: only itself is tried, not who signed it.
    other.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    other.load_verify_locations(certificate)
    if side == "client":
        # No server without a certificate; this client does not look at it.
        other.load_cert_chain(certificate, key, password=refuse)
    try:
        _shake_hands(*((other, own) if side == "server" else (own, other)))
    except ssl.SSLCertVerificationError as error:
        raise InputError(f"the certificate {certificate} cannot be used: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise InputError(f"the certificate {certificate} cannot be used: {error.reason or error}") from None


def is_loopback(host: str) -> bool:
    """Says whether a host name or address (`[::1]`, too) is this machine itself, reachable from nowhere else."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host == "localhost"


def _read(path: Path) -> None:
    """Python's TLS does not name the file that it cannot open."""
    try:
        path.read_bytes()
    except OSError as error:
        raise InputError(f"the TLS file {path} cannot be read: {error.strerror}") from None


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    waiting = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while waiting:
        for side in waiting[:]:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
