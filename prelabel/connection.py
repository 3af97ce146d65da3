"""The command line's options for how to reach a server; gRPC itself is loaded by `prelabel.channel` only."""

from dataclasses import dataclass
from pathlib import Path

from prelabel.tls import Tls


@dataclass(frozen=True)
class TlsOptions:
    """How a command encrypts its connection; every `--tls-...` option means `--tls`, too."""

    tls: bool = False
    """Encrypt the connection, and trust the authorities that come with gRPC unless --tls-ca names others."""
    tls_ca: Path | None = None
    """PEM file with the certificates of the authorities that are trusted."""
    tls_certificate: Path | None = None
    """PEM file with the client's own certificate, where the server wants one (mutual TLS)."""
    tls_key: Path | None = None
    """PEM file with the private key of --tls-certificate."""
    tls_server_name: str | None = None
    """Name in the server's certificate, where it is not the host of the address."""

    def to_tls(self) -> Tls | None:
        """Returns the files; None where the connection is not to be encrypted.

        Raises:
            InputError: A certificate without its key, or a key without its certificate.
        """
        named = (self.tls_ca, self.tls_certificate, self.tls_key, self.tls_server_name)
        if not self.tls and all(option is None for option in named):
            return None
        return Tls(self.tls_ca, self.tls_certificate, self.tls_key, self.tls_server_name)


@dataclass(frozen=True)
class Connection(TlsOptions):
    """How a command reaches a server. A bearer token comes from the environment (PRELABEL_TOKEN), never from here."""

    token_over_plaintext: bool = False
    """Send PRELABEL_TOKEN to another machine without encryption: everybody on the way can read and use it."""
