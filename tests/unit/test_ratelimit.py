import pytest

from modelpack.ratelimit import RateLimiter


class Time:
    def __init__(self):
        self.now = 50.0

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_the_rate_is_kept():
    time = Time()
    limiter = RateLimiter(1_000_000, clock=time.clock, sleep=time.sleep)
    started = time.now
    for _ in range(100):
        limiter.take(100_000)
    assert time.now - started == pytest.approx(10.0, abs=0.3)


def test_a_pause_is_not_saved_up():
    time = Time()
    limiter = RateLimiter(1_000_000, clock=time.clock, sleep=time.sleep)
    limiter.take(1)
    time.now += 3600
    started = time.now
    limiter.take(10_000_000)
    assert time.now - started > 9


def test_without_a_rate_nothing_waits():
    limiter = RateLimiter(None, sleep=lambda _: pytest.fail("slept"))
    limiter.take(10**12)
    assert limiter.piece(1 << 20) == 1 << 20


@pytest.mark.parametrize(
    ("rate", "piece"), [(10**9, 1 << 20), (1_000_000, 250_000), (1000, 16 * 1024)]
)
def test_pieces_are_small_at_low_rates(rate, piece):
    assert RateLimiter(rate).piece(1 << 20) == piece


def test_a_rate_can_change_while_it_is_used():
    time = Time()
    limiter = RateLimiter(1_000_000, clock=time.clock, sleep=time.sleep)
    limiter.take(1_000_000)
    limiter.set_rate(100_000)
    assert limiter.rate == 100_000
    started = time.now
    limiter.take(1_000_000)
    assert time.now - started == pytest.approx(10.0, abs=0.3)
    limiter.set_rate(None)
    started = time.now
    limiter.take(10**12)
    assert time.now == started
    assert limiter.piece(1 << 20) == 1 << 20
