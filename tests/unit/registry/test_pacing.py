"""What trickles is told from what is slow, and waiting for ourselves does not count."""

import socket

import pytest

from modelpack.registry.pacing import LEAST_RATE, PacedReader

SECONDS = 10.0


class Wire:
    """A socket that hands out so many bytes after so many seconds, and the clock it moves."""

    def __init__(self, *arrivals):
        self.now = 0.0
        self._arrivals = list(arrivals)

    def clock(self):
        return self.now

    def recv_into(self, buffer):
        if not self._arrivals:
            return 0
        seconds, count = self._arrivals.pop(0)
        self.now += seconds
        return min(count, len(buffer))


def read_all(wire, *, watch=True, pause=0.0):
    reader = PacedReader(wire, seconds=SECONDS, clock=wire.clock)
    if watch:
        reader.watch()
    total, buffer = 0, bytearray(1 << 20)
    while count := reader.readinto(buffer):
        total += count
        wire.now += pause
    return total


ENOUGH = int(LEAST_RATE * SECONDS)


@pytest.mark.parametrize(
    "arrivals",
    [
        pytest.param([(0.1, 1 << 20)] * 50, id="fast"),
        pytest.param([(9.0, ENOUGH)] * 20, id="slow"),
        pytest.param([(1.0, ENOUGH // 9)] * 60, id="slow in small pieces"),
        pytest.param([(1.0, 1)] * 9, id="too short to judge"),
        pytest.param([], id="nothing to come"),
    ],
)
def test_what_arrives_is_read(arrivals):
    assert read_all(Wire(*arrivals)) == sum(count for _, count in arrivals)


@pytest.mark.parametrize(
    "arrivals",
    [
        pytest.param([(1.0, 1)] * 60, id="a byte a second"),
        pytest.param([(0.0, 1 << 20)] + [(1.0, 1)] * 60, id="after a good beginning"),
        pytest.param([(1.0, ENOUGH // 11)] * 60, id="just too slow"),
    ],
)
def test_a_trickle_times_out(arrivals):
    wire = Wire(*arrivals)
    with pytest.raises(TimeoutError):
        read_all(wire)
    assert wire.now <= 2 * SECONDS


def test_an_answer_is_not_judged_before_its_body():
    assert read_all(Wire(*[(1.0, 1)] * 60), watch=False) == 60


def test_only_waiting_for_the_network_counts():
    assert read_all(Wire(*[(0.01, 100)] * 60), pause=60.0) == 6000


def test_it_reads_a_real_socket_and_leaves_it_open():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"one line\nrest")
        file = PacedReader(ours, seconds=SECONDS).makefile("rb")
        assert file.readline() == b"one line\n"
        file.close()
        theirs.sendall(b"more")
        assert ours.recv(4) == b"more"
