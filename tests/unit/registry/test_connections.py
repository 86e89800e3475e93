import ssl

import pytest

from modelpack.content import BlobContent
from modelpack.descriptor import OCI_LAYER_TAR, Descriptor
from modelpack.errors import UsageError
from modelpack.reference import parse_reference
from modelpack.registry.addresses import Origin
from modelpack.registry.connections import connect
from modelpack.registry.options import ConnectionOptions
from modelpack.registry.repository import RegistryRepository
from tests.support.faultregistry import FaultRegistry
from tests.support.httpproxy import Proxy

BLOB = Descriptor.of(b"bytes", media_type=OCI_LAYER_TAR)


@pytest.fixture
def clean_environment(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.fixture
def open_repository(tmp_path):
    opened = []

    def make(host, **options):
        opened.append(
            RegistryRepository(
                parse_reference(f"{host}/team/model:v1"),
                ConnectionOptions(
                    auth_file=tmp_path / "none.json",
                    state_directory=tmp_path / "state",
                    patience=3.0,
                    **options,
                ),
            )
        )
        return opened[-1]

    yield make
    for made in opened:
        made.close()


def push(repository):
    repository.push_blob(BLOB, BlobContent((b"by", b"tes")))
    assert repository.has_blob(BLOB)
    repository.close()


def test_plain_http_through_a_proxy(clean_environment, open_repository):
    with FaultRegistry() as registry:
        host, _, port = registry.host.partition(":")
        proxy = Proxy((host, int(port)))
        clean_environment.setenv("http_proxy", f"http://ada:pr%40xy@{proxy.host}")
        push(open_repository("registry.test", plain_http=True))
        proxy.close()
        assert {head.split(" ")[0] for head in proxy.heads} == {"POST", "PUT", "HEAD"}
        for head in proxy.heads:
            assert "http://registry.test/v2/team/model/" in head
            assert "proxy-authorization: basic ywrhonbyqhh5" in head.lower()
        assert registry.blob(BLOB.digest) == b"bytes"


def test_tls_through_a_proxy(clean_environment, open_repository, private_ca):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*private_ca.issue("proxy-test"))
    with FaultRegistry(tls=context) as registry:
        host, _, port = registry.host.partition(":")
        proxy = Proxy((host, int(port)))
        clean_environment.setenv("https_proxy", proxy.host)
        push(open_repository("registry.test", insecure_tls=True))
        proxy.close()
        assert {head.split(" HTTP/1.")[0] for head in proxy.heads} == {"CONNECT registry.test:443"}
        assert registry.blob(BLOB.digest) == b"bytes"


def test_loopback_needs_no_proxy(clean_environment, open_repository):
    clean_environment.setenv("http_proxy", "http://127.0.0.1:1")
    with FaultRegistry() as registry:
        push(open_repository(registry.host))


def test_no_proxy(clean_environment):
    clean_environment.setenv("http_proxy", "socks5://127.0.0.1:1")
    options = ConnectionOptions()
    context = options.ssl_context()
    with pytest.raises(UsageError, match="not an http:// proxy"):
        connect(Origin("http", "registry.test", 80), options, context)
    clean_environment.setenv("no_proxy", "registry.test")
    with pytest.raises(OSError, match=r"[Nn]ame|address"):
        connect(Origin("http", "registry.test", 80), options, context)


def test_request_targets():
    with FaultRegistry() as registry:
        options = ConnectionOptions()
        connection = connect(options.endpoint(registry.host), options, options.ssl_context())
        try:
            assert connection.target(f"{registry.url}/v2/x?a=b") == "/v2/x?a=b"
            assert connection.target(registry.url) == "/"
            assert not connection.is_tls
        finally:
            connection.close()


def test_a_configured_proxy_comes_before_the_environments(clean_environment, open_repository):
    clean_environment.setenv("http_proxy", "http://127.0.0.1:1")
    with FaultRegistry() as registry:
        host, _, port = registry.host.partition(":")
        proxy = Proxy((host, int(port)))
        url = f"http://ada:pr%40xy@{proxy.host}"
        push(open_repository("registry.test", plain_http=True, proxy=url))
        proxy.close()
        assert {head.split(" ")[0] for head in proxy.heads} == {"POST", "PUT", "HEAD"}
        for head in proxy.heads:
            assert "proxy-authorization: basic ywrhonbyqhh5" in head.lower()


def test_no_proxy_holds_for_a_configured_one(clean_environment):
    options = ConnectionOptions(proxy="http://127.0.0.1:1")
    context = options.ssl_context()
    with pytest.raises(ConnectionRefusedError):
        connect(Origin("http", "registry.test", 80), options, context)
    clean_environment.setenv("no_proxy", ".test")
    with pytest.raises(OSError, match=r"[Nn]ame|address"):
        connect(Origin("http", "registry.test", 80), options, context)


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:1", "https://proxy.test", "http://", "http://[", "http://x:0"]
)
def test_what_is_no_proxy(clean_environment, open_repository, proxy):
    """Both planes say so alike, and without what may be a password."""
    repository = open_repository("registry.test", plain_http=True, proxy=f"{proxy}")
    with pytest.raises(UsageError, match="the proxy configured is not an http:// proxy"):
        repository.has_blob(BLOB)
    with (
        pytest.raises(UsageError, match="the proxy configured is not an http:// proxy"),
        repository.range_connection().open_range(BLOB, 0, 5),
    ):
        pass


def test_a_proxys_password_is_not_shown(open_repository):
    assert "secret" not in repr(ConnectionOptions(proxy="http://ada:secret@127.0.0.1:1"))
