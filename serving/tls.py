"""The server's certificates: checked before the port opens, read anew when the files change."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from prelabel.errors import InputError
from prelabel.tls import check_authorities, check_pair
from serving.config import Config
from serving.watched import Watched, readable_by_others


def server_credentials(config: Config) -> grpc.ServerCredentials | None:
    """Returns what the port is opened with; None where it is not encrypted.

    New connections see changed files from the next handshake on; open connections keep what they began with.

    Raises:
        InputError: A file is missing, cannot be used, or may be read by every user.
    """
    certificate, key, authorities = config.tls_certificate, config.tls_key, config.tls_client_ca
    if certificate is None or key is None:
        if certificate or key or authorities:
            raise InputError("TLS needs --tls-certificate and --tls-key; --tls-client-ca is for both beside them")
        return None
    files = _Files(certificate, key, authorities)
    # gRPC takes None for "as before"; its type stubs do not know that.
    changed: Callable[[], Any] = files.changed
    return grpc.dynamic_ssl_server_credentials(files.in_use, changed, authorities is not None)


class _Files:
    def __init__(self, certificate: Path, key: Path, authorities: Path | None) -> None:
        self._certificate, self._key, self._authorities = certificate, key, authorities
        paths = [certificate, key] if authorities is None else [certificate, key, authorities]
        self._watched = Watched(paths, self._load)
        self._lock = threading.Lock()
        self.in_use = self._watched.get()

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC's threads before each handshake; None: as before."""
        with self._lock:
            found = self._watched.get()
            if found is self.in_use:
                return None
            self.in_use = found
            return found

    def _load(self) -> grpc.ServerCertificateConfiguration:
        check_pair(self._certificate, self._key, "server")
        if readable_by_others(self._key):
            raise InputError(f"the private key {self._key} may be read by every user: chmod o-rw {self._key}")
        authorities = None
        if self._authorities is not None:
            check_authorities(self._authorities)
            authorities = self._authorities.read_bytes()
        pair = (self._key.read_bytes(), self._certificate.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=authorities)
