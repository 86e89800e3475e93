import datetime as dt
import email.utils
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpack.errors import NetworkError
from modelpack.events import Retried
from modelpack.registry.retry import Backoff, Contact, final_failure, reason_of, retry_after


class Time:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now = 1000.0
        self.naps = []

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.naps.append(seconds)
        self.now += seconds


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def backoff(time):
    def make(patience=120.0, **more):
        return Backoff(
            "pull",
            patience=patience,
            clock=time.clock,
            sleep=time.sleep,
            uniform=lambda low, high: high,
            **more,
        )

    return make


def exhaust(backoff, **more):
    def wait_on():
        for _ in range(1000):
            backoff.wait("HTTP status 503", **more)

    with pytest.raises(NetworkError) as caught:
        wait_on()
    return caught.value


def test_waits_grow_and_stay_within_the_patience(backoff, time):
    error = exhaust(backoff())
    assert time.naps[:4] == [0.25, 0.5, 1.0, 2.0]
    assert max(time.naps) == 15.0
    assert 100 < sum(time.naps) <= 120
    assert error.exit_code == 7
    assert "pull: HTTP status 503; gave up after" in str(error)


def test_progress_starts_over(backoff, time):
    retries = backoff(patience=10.0)
    for _ in range(20):
        retries.wait("reset")
        retries.wait("reset")
        retries.progress()
    assert time.naps == [0.25, 0.5] * 20


def test_moving_bytes_that_are_lost_again_do_not_go_on_for_ever(backoff):
    retries = backoff()
    for _ in range(20):
        retries.touch()
        retries.wait("reset")
    retries.touch()
    with pytest.raises(NetworkError, match="gave up after 21 tries"):
        retries.wait("reset")


def test_the_server_may_ask_for_longer_but_not_for_an_hour(backoff, time):
    retries = backoff()
    retries.wait("HTTP status 429", 7.0)
    retries.wait("HTTP status 429", 3600.0)
    assert time.naps[0] >= 7.0
    assert 60.0 <= time.naps[1] < 70.0


def test_before_any_answer_the_patience_is_short(backoff, time):
    contact = Contact()
    exhaust(backoff(contact=contact))
    assert sum(time.naps) < 5
    time.naps.clear()
    contact.make()
    exhaust(backoff(contact=contact))
    assert sum(time.naps) > 60


def test_retries_are_told(backoff):
    seen = []
    backoff(observer=seen.append).wait("HTTP status 503 https://h/x?secret=1")
    assert seen == [Retried(what="pull", reason="HTTP status 503 https://h/x", delay=0.25)]


def test_jitter_only_shortens(time):
    retries = Backoff("x", patience=100.0, clock=time.clock, sleep=time.sleep)
    for _ in range(5):
        retries.wait("y")
    full = [0.25, 0.5, 1, 2, 4]
    assert all(whole / 2 <= nap <= whole for nap, whole in zip(time.naps, full, strict=True))


NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        (email.utils.formatdate(NOW + 30, usegmt=True), 30.0),
        (email.utils.formatdate(NOW - 30, usegmt=True), 0.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("\u0663", None),
        ("9" * 400, 999_999_999.0),
        ("Sun, 99 Zzz 2026 99:99:99 GMT", None),
    ],
)
def test_retry_after(header, seconds):
    assert retry_after(header, now=NOW) == seconds


@given(st.text(max_size=60))
def test_any_retry_after_is_read(header):
    value = retry_after(header, now=NOW)
    assert value is None or value >= 0


def caused_by(cause):
    error = ConnectionError("outer")
    error.__cause__ = cause
    return error


def certificate_error():
    error = ssl.SSLCertVerificationError(1, "failed")
    error.verify_message = "self-signed certificate"
    return error


def tls_error(reason):
    error = ssl.SSLError(1, "failed")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (certificate_error(), "--ca-file"),
        (tls_error("WRONG_VERSION_NUMBER"), "--plain-http"),
        (socket.gaierror(socket.EAI_NONAME, "no such"), "there is no host r.example"),
    ],
)
def test_final_failures(cause, said):
    error = final_failure(caused_by(cause), "r.example")
    assert error is not None
    assert said in str(error)


@pytest.mark.parametrize(
    "cause",
    [
        ConnectionResetError(104, "Connection reset by peer"),
        TimeoutError("timed out"),
        socket.gaierror(socket.EAI_AGAIN, "try again"),
        tls_error("SSLV3_ALERT_BAD_RECORD_MAC"),
    ],
)
def test_failures_that_may_pass(cause):
    assert final_failure(caused_by(cause), "r.example") is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            caused_by(ConnectionResetError(104, "Connection reset by peer")),
            "connection reset by peer",
        ),
        (TimeoutError(), "timed out"),
        (ValueError("GET https://h/x?token=1"), "ValueError: GET https://h/x"),
    ],
)
def test_reason(error, reason):
    assert reason_of(error) == reason
