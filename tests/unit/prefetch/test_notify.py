"""What systemd is told, read at the other end of a real datagram socket."""

import os
import socket
import time
import uuid

import pytest

from modelpack.prefetch.notify import Notifier

SECONDS = 30


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A service manager's socket, and its address as in NOTIFY_SOCKET."""
    name = f"modelpack-{uuid.uuid4()}"
    address = str(tmp_path / "notify") if request.param == "path" else f"@{name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(SECONDS)
        listening.bind(address if request.param == "path" else f"\0{name}")
        yield listening, address


def test_a_life_is_told(manager):
    listening, address = manager
    notifier = Notifier(address)
    notifier.ready("1 of 2 models is ready")
    notifier.status("2 of 2 models are ready")
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    notifier.ready()
    notifier.stopping("waits for one transfer")
    told = [listening.recv(4096).decode().split("\n") for _ in range(5)]
    assert told[0] == ["READY=1", "STATUS=1 of 2 models is ready"]
    assert told[1] == ["STATUS=2 of 2 models are ready"]
    assert told[2][0] == "RELOADING=1"
    name, _, microseconds = told[2][1].partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= time.monotonic_ns() // 1000
    assert told[3] == ["READY=1"]
    assert told[4] == ["STOPPING=1", "STATUS=waits for one transfer"]


def test_the_same_status_is_sent_once(manager):
    listening, address = manager
    notifier = Notifier(address)
    for text in ("a", "a", "b", "a"):
        notifier.status(text)
    listening.setblocking(False)
    assert [listening.recv(100) for _ in range(3)] == [b"STATUS=a", b"STATUS=b", b"STATUS=a"]
    with pytest.raises(BlockingIOError):
        listening.recv(100)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x\nREADY=1\0", "STATUS=x READY=1 "),
        ("y" * 300, "STATUS=" + "y" * 200),
        ("at https://u:hunter2@r.example/", "STATUS=at https://r.example/"),
        ("a \udc80", "STATUS=a  "),
    ],
    ids=["several lines", "long", "secret", "surrogate"],
)
def test_a_status_is_one_harmless_line(tmp_path, text, line):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(SECONDS)
        listening.bind(str(tmp_path / "notify"))
        Notifier(str(tmp_path / "notify")).status(text)
        assert listening.recv(4096).decode() == line


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def signs(listening):
    """How many signs of life have arrived."""
    listening.setblocking(False)
    number = 0
    while True:
        try:
            assert listening.recv(100) == b"WATCHDOG=1"
        except BlockingIOError:
            return number
        number += 1


def test_signs_of_life_come_from_the_main_loop_alone(manager):
    listening, address = manager
    clock = Clock()
    notifier = Notifier(address, watchdog=20.0, monotonic=clock)
    assert notifier.beat == 10.0
    notifier.alive()
    assert signs(listening) == 1
    for _ in range(100):  # a hundred rounds in ten seconds
        clock.now += 0.1
        notifier.alive()
    assert signs(listening) in {1, 2}
    clock.now += 15  # a main loop that hangs says nothing, whatever else runs
    assert signs(listening) == 0


@pytest.mark.parametrize("rhythm", [0.5, 3.0, 4.9, 5.0, 7.0, 10.0])
def test_no_silence_is_as_long_as_the_watchdog_waits(tmp_path, rhythm):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        clock = Clock()
        notifier = Notifier(str(tmp_path / "notify"), watchdog=20.0, monotonic=clock)
        last, longest = clock.now, 0.0
        for _ in range(int(200 / rhythm)):
            notifier.alive()
            if signs(listening):
                longest, last = max(longest, clock.now - last), clock.now
            clock.now += rhythm
        assert 0 < longest <= 15


@pytest.mark.parametrize(
    ("environ", "beat"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
        ({}, None),
    ],
)
def test_the_environment_says_whether_there_is_a_watchdog(environ, beat):
    assert Notifier.from_environment({"NOTIFY_SOCKET": "/run/x", **environ}).beat == beat
    assert Notifier.from_environment(environ).beat is None


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "/nowhere/at/all"])
def test_without_a_manager_nothing_happens(address):
    environ = {"WATCHDOG_USEC": "1000"} | ({} if address is None else {"NOTIFY_SOCKET": address})
    notifier = Notifier.from_environment(environ)
    notifier.ready("x")
    notifier.status("y")
    notifier.reloading()
    notifier.alive()
    notifier.stopping()
