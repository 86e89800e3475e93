import select
import socket
import ssl
import threading

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

BLOB = Descriptor.of(b"bytes", media_type=OCI_LAYER_TAR)


class Proxy:
    """A proxy that leads every name to one server, and keeps the heads of the requests."""

    def __init__(self, target):
        self.heads = []
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def host(self):
        return f"127.0.0.1:{self._server.getsockname()[1]}"

    def close(self):
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in list(self._threads):
            thread.join(10)

    def _accept(self):
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer):
        with peer, socket.create_connection(self._target) as upstream:
            head = b""
            while b"\r\n\r\n" not in head:
                more = peer.recv(65536)
                if not more:
                    return
                head += more
            self.heads.append(head.decode("latin-1"))
            method, _, rest = head.partition(b" ")
            if method == b"CONNECT":
                peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                # One request a connection is enough here: the absolute form becomes a path.
                path = b"/" + rest.split(b"://", 1)[1].split(b"/", 1)[1]
                upstream.sendall(method + b" " + path)
            ends = {peer: upstream, upstream: peer}
            while True:
                ready, _, _ = select.select(list(ends), [], [], 10)
                for end in ready:
                    data = end.recv(65536)
                    if not data:
                        return
                    if b"HTTP/1.1\r\n" in data[:500] and end is peer and method != b"CONNECT":
                        self.heads.append(data.decode("latin-1"))
                        verb, _, rest = data.partition(b" ")
                        data = verb + b" /" + rest.split(b"://", 1)[1].split(b"/", 1)[1]
                    ends[end].sendall(data)


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
