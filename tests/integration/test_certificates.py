"""The server's process with certificates: who trusts whom, and what is refused before the port opens."""

import json
from pathlib import Path

import pytest

from prelabel import __main__ as cli
from prelabel.client import PrelabelClient
from prelabel.errors import AccessError, ServerUnavailableError
from prelabel.tls import Tls
from support.certificates import DAY, Authority
from support.guarded import IMAGES, connect, health
from support.servers import run_server, run_serving


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_tls(tiny_bundle: Path, tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]) -> None:
    certificate, key = authority.issue("server", hosts=("prelabel.example",))
    stranger = Authority(tmp_path, "stranger")
    name = "prelabel.example"
    options = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    with run_server(tiny_bundle, tmp_path / "port", *options) as server:
        with connect(server, Tls(authority.file, server_name=name)) as client:
            assert len(client.predict(IMAGES)) == 3
            assert [len(batch) for batch in client.predict_stream([IMAGES] * 20)] == [3] * 20
        # The certificate is for another host, or signed by somebody else: an error at once, not after a minute.
        for wrong in (Tls(authority.file), Tls(stranger.file, server_name=name), Tls(server_name=name)):
            with connect(server, wrong) as client, pytest.raises(AccessError, match="is not trusted"):
                client.model()
        with (
            PrelabelClient(server.address, retry_for_s=0) as plain,
            pytest.raises(ServerUnavailableError, match="does it want TLS"),
        ):
            plain.model()

        flags = ["--tls-ca", str(authority.file), "--tls-server-name", name]
        assert cli.main(["info", server.address, "--json", *flags]) == 0
        assert json.loads(capsys.readouterr().out)["name"] == "tiny"
        good, wrong_file, bad = health(server, *flags), health(server, "--tls-ca", key), health(server)
        assert (good.returncode, good.stdout.split()[-1]) == (0, "SERVING")
        assert (wrong_file.returncode, bad.returncode) == (1, 1)
        assert f"{key} holds no certificate" in wrong_file.stdout


def test_mutual_tls(tiny_bundle: Path, tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.issue("server")
    own, own_key = authority.issue("client")
    stranger, stranger_key = Authority(tmp_path, "other").issue("stranger")
    options = ("--tls-certificate", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(authority.file))
    with run_server(tiny_bundle, tmp_path / "port", *options) as server:
        with connect(server, Tls(authority.file, own, own_key)) as client:
            assert len(client.predict(IMAGES)) == 3
        for refused in (Tls(authority.file), Tls(authority.file, stranger, stranger_key)):
            with (
                PrelabelClient(server.address, tls=refused, retry_for_s=0) as client,
                pytest.raises(ServerUnavailableError, match="client's certificate"),
            ):
                client.model()
        flags = ("--tls-ca", authority.file, "--tls-certificate", own, "--tls-key", own_key)
        assert health(server, *flags).returncode == 0
        assert health(server, *flags[:2]).returncode == 1


def test_what_is_for_this_machine_takes_no_proxy_when_it_is_encrypted_either(
    tiny_bundle: Path, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = authority.issue("server")
    options = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    with run_server(tiny_bundle, tmp_path / "port", *options) as server:
        for name in ("no_proxy", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        with PrelabelClient(server.address, tls=Tls(authority.file), retry_for_s=0) as client:
            assert len(client.predict(IMAGES)) == 3


def test_changed_certificates_are_for_new_connections_and_bad_ones_change_nothing(
    tiny_bundle: Path, tmp_path: Path, authority: Authority
) -> None:
    certificate, key = authority.issue("server")
    old = Tls(authority.file)
    with run_server(
        tiny_bundle, tmp_path / "port", "--tls-certificate", str(certificate), "--tls-key", str(key)
    ) as server:
        with connect(server, old) as before:
            before.model()
            key.write_text("half a key")
            with connect(server, old) as client:
                client.model()
            successor = Authority(tmp_path, "successor")
            successor.issue("server")
            with connect(server, Tls(successor.file)) as client:
                client.model()
            with connect(server, old) as client, pytest.raises(AccessError, match="is not trusted"):
                client.model()
            # The open connection goes on.
            before.model()
        _, log = server.terminate()
    messages = [line["message"] for line in log]
    assert messages.count("changed files cannot be used") == 1
    assert messages.count("changed files read") == 1


def test_certificates_that_cannot_be_used_are_refused_before_the_port_opens(
    tiny_bundle: Path, tmp_path: Path, authority: Authority
) -> None:
    certificate, key = authority.issue("server")
    _, other_key = authority.issue("other")
    expired, expired_key = authority.issue("expired", ends=-DAY)
    open_certificate, open_key = authority.issue("open")
    open_key.chmod(0o644)
    for options, reason in [
        (("--tls-certificate", certificate), "TLS needs --tls-certificate and --tls-key"),
        (("--tls-client-ca", authority.file), "TLS needs --tls-certificate and --tls-key"),
        (("--tls-certificate", tmp_path / "none.pem", "--tls-key", key), "none.pem cannot be read: No such file"),
        (("--tls-certificate", certificate, "--tls-key", other_key), "other.key is not that of the certificate"),
        (("--tls-certificate", expired, "--tls-key", expired_key), "expired.pem cannot be used: certificate has exp"),
        (("--tls-certificate", open_certificate, "--tls-key", open_key), f"chmod o-rw {open_key}"),
        (
            ("--tls-certificate", certificate, "--tls-key", key, "--tls-client-ca", key),
            "server.key holds no certificate",
        ),
        (("--token-file", tmp_path / "none"), "none cannot be read: No such file"),
    ]:
        done = run_serving("--model", tiny_bundle, "--device", "cpu", "--port", 0, *options)
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        assert reason in line
