"""Starting and stopping the server: what is wrong is one line, and nothing is left."""

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from modelpack.errors import ModelpackError, UsageError
from modelpack.prefetch.web import serve
from modelpack.prefetch.web.client import ask
from tests.support.statuses import RecordingControl, status
from tests.support.webdaemon import SECONDS, Daemon, request

ROOT = Path(__file__).parents[4]


def test_nothing_is_left(tmp_path):
    threads, files = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    daemon = Daemon(tmp_path)
    for _ in range(3):
        with daemon.serve() as endpoints:
            assert request(endpoints.url, path="/healthz")[0] == 200
            assert ask(daemon.socket, "hold", "chat")
        assert set(threading.enumerate()) == threads
        assert len(os.listdir("/proc/self/fd")) == files
        assert list(tmp_path.iterdir()) == []


def test_a_stop_waits_for_nobody(tmp_path):
    daemon = Daemon(tmp_path)
    with ExitStack() as clients:
        with daemon.serve() as endpoints:
            parts = urlsplit(endpoints.url)
            for sent in (b"", b"GET /met", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"):
                address = (parts.hostname, parts.port)
                client = clients.enter_context(socket.create_connection(address))
                client.sendall(sent)
            began = time.monotonic()
        assert time.monotonic() - began < 30
    with pytest.raises(ConnectionRefusedError):
        request(endpoints.url)


def test_a_fault_inside_ends_the_server_too(tmp_path):
    daemon = Daemon(tmp_path)
    with pytest.raises(ZeroDivisionError), daemon.serve() as endpoints:
        raise ZeroDivisionError
    with pytest.raises(ConnectionRefusedError):
        request(endpoints.url)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_address_is_an_error_that_leaves_nothing(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ModelpackError, match=f"127.0.0.1:{port} is in use by another program"),
            Daemon(tmp_path, listen=f"127.0.0.1:{port}").serve(),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


def test_the_same_port_can_be_taken_again_at_once(tmp_path):
    daemon = Daemon(tmp_path)
    with daemon.serve() as endpoints:
        request(endpoints.url)
        port = urlsplit(endpoints.url).port
    with Daemon(tmp_path, listen=("127.0.0.1", port)).serve() as again:
        assert request(again.url)[0] == 200


@pytest.mark.parametrize(
    ("listen", "message"),
    [
        ("9464", "'9464' is not HOST:PORT"),
        (":9464", "':9464' is not HOST:PORT"),
        ("127.0.0.1:", "is not HOST:PORT"),
        ("127.0.0.1:65536", "is not HOST:PORT"),
        ("127.0.0.1:²", "is not HOST:PORT"),
        ("::1:9464", "is not HOST:PORT"),
        ("[127.0.0.1]:80", "is not HOST:PORT"),
        ("192.0.2.1:9464", "192.0.2.1:9464 is not an address of this machine"),
        ("no.such.host.invalid:9464", "no.such.host.invalid is no address or name|'no.such.host"),
        ("x" * 300 + ":9464", "is no address or name of this machine"),
    ],
)
def test_a_bad_address_is_one_line(tmp_path, listen, message):
    with (
        pytest.raises(UsageError, match=message) as caught,
        Daemon(tmp_path, listen=listen).serve(),
    ):
        pass
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_ipv6(tmp_path):
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    with Daemon(tmp_path, listen="[::1]:0").serve() as endpoints:
        assert endpoints.url.startswith("http://[::1]:")
        assert request(endpoints.url)[0] == 200


def test_a_socket_that_a_killed_daemon_left_is_replaced(tmp_path):
    daemon = Daemon(tmp_path)
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(daemon.socket))
    with daemon.serve():
        assert ask(daemon.socket, "hold", "chat")


def test_a_second_daemon_is_told_of_the_first(tmp_path):
    with Daemon(tmp_path).serve() as first:
        with (
            pytest.raises(ModelpackError, match="another daemon answers there"),
            Daemon(tmp_path).serve(),
        ):
            pass
        assert ask(first.socket_path, "hold", "chat")


def test_a_successors_socket_is_left_alone(tmp_path):
    daemon = Daemon(tmp_path)
    with daemon.serve():
        daemon.socket.unlink()
        daemon.socket.write_text("another's")
    assert daemon.socket.read_text() == "another's"


@pytest.mark.parametrize("what", ["file", "directory", "link"])
def test_something_else_in_the_sockets_place_is_not_removed(tmp_path, what):
    daemon = Daemon(tmp_path)
    if what == "directory":
        daemon.socket.mkdir()
    elif what == "link":
        daemon.socket.symlink_to("/nowhere")
    else:
        daemon.socket.write_text("mine")
    with pytest.raises(ModelpackError, match="something else is there"), daemon.serve():
        pass
    assert os.path.lexists(daemon.socket)


def test_the_sockets_directory_must_be_there(tmp_path):
    daemon = Daemon(tmp_path / "gone")
    with pytest.raises(ModelpackError, match="No such file or directory"), daemon.serve():
        pass


def test_a_store_may_have_a_long_name(tmp_path):
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    daemon = Daemon(deep)
    with daemon.serve():
        assert ask(daemon.socket, "hold", "chat") == "hold: chat"
    assert list(deep.iterdir()) == []


def test_what_serving_needs_is_named_where_it_is_missing():
    program = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "from pathlib import Path\n"
        "from modelpack.errors import UsageError\n"
        "from modelpack.prefetch.web import client, serve\n"
        "try: serve(None, None, listen='127.0.0.1:0', socket_path=Path('x'))\n"
        "except UsageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS
    )
    assert "needs aiohttp: pip install modelpack-oci[node]" in done.stdout, done.stderr


def test_the_library_offers_it(tmp_path):
    with serve(
        status, RecordingControl(), listen="127.0.0.1:0", socket_path=tmp_path / "s"
    ) as endpoints:
        assert request(endpoints.url, path="/readyz")[0] == 200
