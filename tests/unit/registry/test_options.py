import socket
import ssl

import pytest

from modelpack.errors import UsageError
from modelpack.registry.credentials import Credentials
from modelpack.registry.options import ConnectionOptions


@pytest.mark.parametrize(
    ("registry", "plain_http", "url"),
    [
        ("localhost:5000", None, "http://localhost:5000"),
        ("127.0.0.1", None, "http://127.0.0.1"),
        ("[::1]:5000", None, "http://[::1]:5000"),
        ("r.example", None, "https://r.example"),
        ("R.Example:443", None, "https://r.example"),
        ("r.example:5000", True, "http://r.example:5000"),
        ("localhost:5000", False, "https://localhost:5000"),
        ("docker.io", None, "https://registry-1.docker.io"),
        ("index.docker.io", None, "https://registry-1.docker.io"),
    ],
)
def test_endpoint(registry, plain_http, url):
    assert ConnectionOptions(plain_http=plain_http).endpoint(registry).url == url


def test_certificates_are_checked_unless_told_otherwise():
    context = ConnectionOptions().ssl_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert ConnectionOptions(insecure_tls=True).ssl_context().verify_mode is ssl.CERT_NONE


def test_the_systems_certificates_are_loaded_when_needed():
    context = ConnectionOptions().ssl_context()
    assert context.cert_store_stats()["x509_ca"] == 0
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wrapped = context.wrap_socket(ours, server_hostname="x", do_handshake_on_connect=False)
        wrapped.close()
    expected = ssl.create_default_context().cert_store_stats()
    assert context.cert_store_stats() == expected


def test_ca_file_is_trusted_besides_the_systems(private_ca):
    assert private_ca.file.read_bytes()
    context = ConnectionOptions(ca_file=private_ca.file).ssl_context()
    subjects = [dict(pair[0] for pair in ca["subject"]) for ca in context.get_ca_certs()]
    assert {"commonName": "test CA"} in subjects


@pytest.mark.parametrize("text", [None, "no certificate"], ids=["missing", "other file"])
def test_bad_ca_file(tmp_path, text):
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=r"ca\.pem"):
        ConnectionOptions(ca_file=file).ssl_context()


@pytest.mark.parametrize(
    "wrong", [{"max_connections": 0}, {"limit_rate": -1}, {"patience": 0.0}, {"read_timeout": -1.0}]
)
def test_bounds(wrong):
    with pytest.raises(UsageError):
        ConnectionOptions(**wrong)


def test_secrets_are_not_shown():
    credentials = Credentials(username="ada", password="hidden", identity_token="hidden")
    assert "hidden" not in repr(ConnectionOptions(credentials=credentials))
