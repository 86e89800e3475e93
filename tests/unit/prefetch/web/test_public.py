"""What anybody may read over TCP: what is answered, what is refused, within which bounds."""

import http.client
import json
import socket
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from modelpack.prefetch.status import RuntimeStatus, Stage
from modelpack.prefetch.web.connections import Limits
from tests.support.statuses import model, status
from tests.support.webdaemon import SECONDS, Daemon, raw, request


@pytest.fixture
def daemon(tmp_path):
    daemon = Daemon(tmp_path)
    with daemon.serve() as endpoints:
        daemon.url = endpoints.url
        yield daemon


PATHS = {
    "/": "text/html",
    "/v1/status": "application/json",
    "/metrics": "text/plain",
    "/healthz": "text/plain",
    "/readyz": "text/plain",
}


@pytest.mark.parametrize(("path", "kind"), PATHS.items(), ids=PATHS)
def test_what_is_read(daemon, path, kind):
    code, headers, body = request(daemon.url, path=path)
    assert code == 200
    assert headers["Content-Type"].startswith(kind)
    assert body
    head_code, head_headers, head_body = request(daemon.url, "HEAD", path)
    assert (head_code, head_body) == (200, b"")
    assert head_headers["Content-Type"] == headers["Content-Type"]


@pytest.mark.parametrize("path", [*PATHS, "/nowhere"])
def test_every_answer_is_hardened(daemon, path):
    _, headers, _ = request(daemon.url, path=path)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Server"] == "modelpack"
    assert headers["Connection"] == "close"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("path", [*PATHS, "/v1/refresh", "/v1/models/chat/hold", "/nowhere"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_is_changed_over_tcp(daemon, method, path):
    code, headers, _ = request(daemon.url, method, path, body=b"{}")
    assert code == 405
    assert set(headers["Allow"].split(",")) == {"GET", "HEAD"}
    assert daemon.control.asked == []


def test_there_is_no_control_over_tcp(daemon):
    assert request(daemon.url, path="/v1/models/chat/hold")[0] == 404
    assert request(daemon.url, path="/../etc/passwd")[0] == 404


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:9464", 200),
        ("localhost:1", 200),
        ("LOCALHOST", 200),
        ("[::1]:8080", 200),
        ("127.8.8.8", 200),
        ("evil.example", 421),
        ("evil.example:9464", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("192.0.2.1:9464", 421),
        ("", 421),
    ],
)
def test_other_names_for_loopback_are_refused(daemon, host, code):
    answered, _, body = request(daemon.url, path="/v1/status", headers={"Host": host})
    assert answered == code
    assert (b"node-a" in body) == (code == 200)


def test_elsewhere_any_name_is_taken(tmp_path):
    daemon = Daemon(tmp_path, listen=("0.0.0.0", 0))
    with daemon.serve() as endpoints:
        url = f"http://127.0.0.1:{urlsplit(endpoints.url).port}/"
        assert request(url, path="/readyz", headers={"Host": "node-a.example"})[0] == 200


def test_status_is_the_document(daemon):
    _, _, body = request(daemon.url, path="/v1/status")
    assert json.loads(body) == json.loads(json.dumps(daemon.status.to_json()))


@pytest.mark.parametrize(
    ("age", "code", "text"),
    [
        (0, 200, "ok\n"),
        (119, 200, "ok\n"),
        (121, 503, "the main loop has not come round for 121 s\n"),
        (-3600, 200, "ok\n"),
    ],
    ids=["now", "slow", "hung", "the clock was set back"],
)
def test_health_is_about_the_main_loop_only(tmp_path, age, code, text):
    daemon = Daemon(tmp_path, clock=lambda: 5000.0)
    daemon.status = status(
        model(stage=Stage.FAILED),
        alive_at=5000.0 - age,
        runtime=RuntimeStatus(kind="containerd", reachable=False, reason="gone"),
    )
    with daemon.serve() as endpoints:
        answered, _, body = request(endpoints.url, path="/healthz")
    assert (answered, body.decode()) == (code, text)


@pytest.mark.parametrize(
    ("changed", "code", "text"),
    [
        (status(model()), 200, "ready\n"),
        (status(), 200, "ready\n"),
        (
            status(model("a"), model("b", Stage.DOWNLOADING), model("c", Stage.REFUSED)),
            503,
            "b: Downloading\n",
        ),
        (
            status(runtime=RuntimeStatus(kind="x", reachable=False, reason="no\nanswer")),
            503,
            "runtime: no answer\n",
        ),
        (status(model(), stopping=True), 503, "the daemon is stopping\n"),
    ],
    ids=["ready", "empty", "on the way", "no runtime", "stopping"],
)
def test_readiness_has_reasons(daemon, changed, code, text):
    daemon.status = changed
    answered, _, body = request(daemon.url, path="/readyz")
    assert (answered, body.decode()) == (code, text)


def test_metrics_come_in_the_format_that_is_asked_for(daemon):
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    _, headers, body = request(daemon.url, path="/metrics", headers=accept)
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_a_fault_in_the_status_is_no_leak(daemon, caplog):
    daemon.status = None
    code, headers, body = request(daemon.url, path="/v1/status")
    assert code == 500
    assert b"NoneType" not in body
    assert b"Traceback" not in body
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "NoneType" in caplog.text
    daemon.status = status()
    assert request(daemon.url, path="/v1/status")[0] == 200


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 10_000 + b"\r\n\r\n", b"400"),
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 200 + b"\r\n",
            b"400",
        ),
        (b"nonsense\r\n\r\n", b"400"),
        (b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\n\r\n", b"421"),
    ],
    ids=["long line", "long header", "many headers", "nonsense", "no such method", "no host"],
)
def test_strange_requests_get_one_answer(daemon, sent, code):
    answer = raw(daemon.url, sent)
    assert answer.split()[1] == code
    assert answer.count(b"\nContent-Length: ") == 1
    assert request(daemon.url, path="/healthz")[0] == 200


def test_a_body_is_not_waited_for(daemon):
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
    assert raw(daemon.url, head).endswith(b"ok\n")


def test_one_connection_is_one_request(daemon):
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert raw(daemon.url, one * 3).count(b"HTTP/1.1 200") == 1


def test_a_connection_that_says_nothing_is_ended(tmp_path):
    daemon = Daemon(tmp_path, limits=Limits(seconds=0.2))
    with daemon.serve() as endpoints:
        assert raw(endpoints.url, b"GET / HTTP/1.1\r\nHost: loc") == b""
        assert request(endpoints.url, path="/healthz")[0] == 200


def test_there_is_a_limit_to_connections(tmp_path):
    daemon = Daemon(tmp_path, limits=Limits(connections=2))
    with daemon.serve() as endpoints, ExitStack() as stack:
        parts = urlsplit(endpoints.url)
        address = (parts.hostname, parts.port)
        idle = [
            stack.enter_context(socket.create_connection(address, timeout=SECONDS))
            for _ in range(2)
        ]
        until(lambda: not is_served(endpoints.url))
        idle[0].close()
        until(lambda: is_served(endpoints.url))


def is_served(url):
    try:
        return request(url, path="/healthz")[0] == 200
    except (ConnectionResetError, http.client.RemoteDisconnected):
        return False


def until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
