from pathlib import Path

import pytest

from prelabel.channel import bearer, open_channel
from prelabel.client import PrelabelClient
from prelabel.connection import Connection, TlsOptions
from prelabel.errors import InputError
from prelabel.images import ImageSpec
from prelabel.testing import FakeServer
from prelabel.tls import Tls, check_authorities, check_pair, is_loopback
from support.certificates import CLIENT_ONLY, DAY, Authority

TOKEN = "a-token-of-16-characters"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_pair_that_works_passes_on_both_sides(authority: Authority) -> None:
    certificate, key = authority.issue("both")
    check_pair(certificate, key, "server")
    check_pair(certificate, key, "client")
    check_authorities(authority.file)
    chain = certificate.with_name("chain.pem")
    chain.write_bytes(certificate.read_bytes() + authority.file.read_bytes())
    check_pair(chain, key, "server")


def test_a_pair_that_cannot_work_is_refused_and_says_why(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("good")
    other_certificate, other_key = authority.issue("other")
    text = tmp_path / "text.pem"
    text.write_text("no certificate\n")
    expired = authority.issue("expired", ends=-DAY)
    future = authority.issue("locked", passphrase=b"secret")
    for pair, reason in [
        ((tmp_path / "none.pem", key), r"none\.pem cannot be read: No such file"),
        ((certificate, tmp_path / "none.key"), r"none\.key cannot be read: No such file"),
        ((tmp_path, key), "cannot be read: Is a directory"),
        ((certificate, other_key), r"other\.key is not that of the certificate"),
        ((other_certificate, key), r"good\.key is not that of the certificate"),
        ((text, key), "no certificate and private key in PEM"),
        ((certificate, text), "no certificate and private key in PEM"),
        ((key, certificate), "no certificate and private key in PEM"),
        (expired, r"expired\.pem cannot be used: certificate has expired"),
        (future, r"locked\.key is encrypted"),
    ]:
        for side in ("server", "client"):
            with pytest.raises(InputError, match=reason) as caught:
                check_pair(*pair, side)
            assert "\n" not in str(caught.value)


def test_a_certificate_for_clients_is_none_for_a_server(authority: Authority) -> None:
    pair = authority.issue("client", purpose=CLIENT_ONLY)
    check_pair(*pair, "client")
    with pytest.raises(InputError, match="purpose"):
        check_pair(*pair, "server")


def test_authorities_that_cannot_be_trusted_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for path, reason in [
        (tmp_path / "none.pem", "cannot be read"),
        (empty, "holds no certificate"),
        (Authority(tmp_path, "old", ends=-DAY).file, "has expired"),
    ]:
        with pytest.raises(InputError, match=reason):
            check_authorities(path)


def test_files_are_tried_before_a_channel_is_opened(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        open_channel("127.0.0.1:1", (), Tls(ca=tmp_path / "none.pem"))
    certificate, key = authority.issue("client")
    with pytest.raises(InputError, match="belong together"):
        Tls(certificate=certificate)
    _, other = authority.issue("other")
    with pytest.raises(InputError, match="is not that of"):
        open_channel("127.0.0.1:1", (), Tls(certificate=certificate, key=other))
    open_channel("127.0.0.1:1", (), Tls(authority.file, certificate, key, "name")).close()


def test_every_tls_option_means_tls() -> None:
    assert TlsOptions().to_tls() is None
    assert Connection(token_over_plaintext=True).to_tls() is None
    assert TlsOptions(tls=True).to_tls() == Tls()
    assert TlsOptions(tls_ca=Path("ca")).to_tls() == Tls(ca=Path("ca"))
    assert TlsOptions(tls_server_name="x").to_tls() == Tls(server_name="x")
    with pytest.raises(InputError, match="belong together"):
        TlsOptions(tls_key=Path("key")).to_tls()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_hosts_of_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com", "127.0.0.1.example.com", "", "dns:///"],
)
def test_hosts_that_may_be_elsewhere(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("address", ["127.0.0.1:50051", "localhost:1", "[::1]:50051"])
def test_a_token_may_go_to_this_machine(address: str) -> None:
    assert bearer(TOKEN, address, None, False) == (("authorization", f"Bearer {TOKEN}"),)


@pytest.mark.parametrize(
    "address", ["10.0.0.1:50051", "example.com:50051", "127.0.0.1:1@example.com:50051", "dns:///example.com:443"]
)
def test_a_token_goes_elsewhere_encrypted_or_by_permission_only(address: str) -> None:
    with pytest.raises(InputError, match="--token-over-plaintext") as caught:
        bearer(TOKEN, address, None, False)
    assert TOKEN not in str(caught.value)
    assert address in str(caught.value)
    sent = (("authorization", f"Bearer {TOKEN}"),)
    assert bearer(TOKEN, address, Tls(), False) == bearer(TOKEN, address, None, True) == sent


@pytest.mark.parametrize("token", ["short", "sixteen characters", "x" * 20 + "\n", "x" * 20 + ":", "ü" * 20, "x" * 513])
def test_a_token_that_cannot_be_one_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(InputError, match="PRELABEL_TOKEN") as caught:
        bearer(token, "127.0.0.1:1", None, False)
    assert token.strip() not in str(caught.value)


def test_no_token_is_no_metadata() -> None:
    assert bearer(None, "example.com:1", None, False) == bearer("", "example.com:1", None, False) == ()


def test_what_is_for_this_machine_takes_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with (
        FakeServer(("a", "b"), ImageSpec(6, 5, 1)) as server,
        PrelabelClient(server.address, token=TOKEN, retry_for_s=0) as client,
    ):
        assert client.model().name == "fake"
