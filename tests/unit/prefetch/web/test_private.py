"""What root may ask on the socket, who is turned away, and what its client makes of answers."""

import os
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from modelpack.errors import AuthError, ModelpackError, NetworkError, NotFoundError, UsageError
from modelpack.prefetch.web import sockets
from modelpack.prefetch.web.client import ask, fetch_status
from tests.support.requirements import require_root
from tests.support.webdaemon import SECONDS, Daemon


@pytest.fixture
def daemon(tmp_path):
    daemon = Daemon(tmp_path)
    with daemon.serve() as endpoints:
        daemon.url = endpoints.url
        yield daemon


@pytest.mark.parametrize("verb", ["hold", "release", "refresh"])
@pytest.mark.parametrize("name", ["chat", "registry.example/a b:v1"])
def test_a_model_is_named(daemon, verb, name):
    assert ask(daemon.socket, verb, name) == f"{verb}: {name}"
    assert daemon.control.asked == [(verb, name)]


def test_refreshing_all(daemon):
    assert ask(daemon.socket, "refresh", None) == "refresh: all"
    assert daemon.control.asked == [("refresh", None)]


@pytest.mark.parametrize(
    ("verb", "name", "error", "message"),
    [
        ("hold", "other", NotFoundError, "no model is called other; see modelpack daemon status"),
        ("rollback", "chat", UsageError, "chat: there is no earlier version on this node"),
    ],
)
def test_refusals_come_back_as_what_they_are(daemon, verb, name, error, message):
    with pytest.raises(error) as caught:
        ask(daemon.socket, verb, name)
    assert str(caught.value) == message


def test_a_fault_of_the_daemon_is_told_apart(daemon, caplog):
    with pytest.raises(ModelpackError, match="could not scrub, by a fault of its own") as caught:
        ask(daemon.socket, "scrub", "chat")
    assert daemon.control.asked == [("scrub", "chat")]
    assert "hunter2" not in str(caught.value)
    assert "RuntimeError" in caplog.text


@pytest.mark.parametrize(
    "path", ["/v1/models/chat/sell", "/v1/hold", "/v1/models/chat", "/", "/metrics"]
)
def test_other_verbs_are_unknown(daemon, path):
    with sockets.connected(daemon.socket, timeout=SECONDS) as stream:
        stream.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert stream.recv(100).split()[1] in {b"404", b"405"}
    assert daemon.control.asked == []


def test_looking_does_nothing(daemon):
    with sockets.connected(daemon.socket, timeout=SECONDS) as stream:
        stream.sendall(b"GET /v1/models/chat/hold HTTP/1.1\r\nHost: x\r\n\r\n")
        assert stream.recv(100).split()[1] == b"405"
    assert daemon.control.asked == []


def test_both_ways_say_the_same(daemon):
    assert fetch_status(daemon.socket) == fetch_status(daemon.url)


def test_the_socket_is_its_owners_from_the_start(daemon):
    found = os.stat(daemon.socket)
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_uid == os.geteuid()


KNOCK = """
import os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as s:
    s.settimeout(60)
    s.connect(sys.argv[1])
    s.sendall(b"POST /v1/models/chat/hold HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    print(s.recv(4096).decode())
"""


@pytest.mark.root
def test_another_user_is_turned_away_even_past_the_mode(tmp_path):
    require_root()
    open_place = Path("/tmp") / f"modelpack-{os.getpid()}-{time.monotonic_ns()}"
    open_place.mkdir(mode=0o755)
    open_place.chmod(0o755)
    daemon = Daemon(open_place)
    try:
        with daemon.serve():

            def knock():
                return subprocess.run(
                    [sys.executable, "-c", KNOCK, str(daemon.socket)],
                    capture_output=True,
                    text=True,
                    timeout=SECONDS,
                )

            assert "PermissionError" in knock().stderr
            daemon.socket.chmod(0o666)
            assert knock().stdout.startswith("HTTP/1.1 403 ")
            assert daemon.control.asked == []
            assert ask(daemon.socket, "hold", "chat") == "hold: chat"
    finally:
        open_place.rmdir()


@pytest.mark.parametrize("where", ["missing", "missing/deeper", "stale"])
def test_nobody_there_is_said(tmp_path, where):
    path = tmp_path / where
    if where == "stale":
        with socket.socket(socket.AF_UNIX) as old:
            old.bind(str(path))
    with pytest.raises(NetworkError, match=f"{path}: no daemon answers there") as caught:
        fetch_status(path)
    assert caught.value.exit_code == 7


def test_nobody_at_an_address_is_said():
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(NetworkError, match=f"{url}: no daemon answers there"):
        fetch_status(url)


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:9464", "ftp://x/", "http://", "http://u:hunter2@x/", "http://x\n/", "http://[x/"],
)
def test_an_url_is_checked(url):
    with pytest.raises(UsageError, match="is no address such as") as caught:
        fetch_status(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<a/>",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b'HTTP/1.1 302 OK\r\nLocation: http://x/\r\nContent-Length: 13\r\n\r\n{"models": []}',
    ],
    ids=["list", "html", "empty", "redirect"],
)
def test_something_else_that_answers_is_no_daemon(answer):
    with socket.create_server(("127.0.0.1", 0)) as other:

        def reply():
            connection, _ = other.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        try:
            with pytest.raises(ModelpackError, match="no modelpack daemon"):
                fetch_status(f"http://127.0.0.1:{other.getsockname()[1]}/")
        finally:
            thread.join(SECONDS)


def test_a_user_who_may_not_is_told_who_may(daemon, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("modelpack.prefetch.web.client.connected", denied)
    with pytest.raises(AuthError, match="only root may use the daemon's socket; run it as root"):
        fetch_status(daemon.socket)
