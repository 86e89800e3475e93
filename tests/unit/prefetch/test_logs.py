"""The log: one JSON object a line, the same members each time, no secrets."""

import io
import json
import logging
import warnings
from datetime import UTC, datetime

import pytest

from modelpack.errors import UsageError
from modelpack.prefetch import logs


@pytest.fixture
def log():
    """A configured log; what the test runner had configured comes back afterwards."""
    root, chatty = logging.getLogger(), [logging.getLogger(name) for name in logs._CHATTY]
    before = root.handlers[:], root.level, [logger.level for logger in chatty]
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.configure(stream=stream)
        yield stream
        logging.captureWarnings(capture=False)
    root.handlers[:], level, levels = before
    root.setLevel(level)
    for logger, old in zip(chatty, levels, strict=True):
        logger.setLevel(old)


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


LOGGER = logging.getLogger("modelpack.prefetch.test")


def test_a_line_is_an_object(log):
    LOGGER.info("ready after %.1f s", 3.21, extra={"model": "chat", "digest": "sha256:00"})
    (line,) = lines(log)
    moment = datetime.fromisoformat(line.pop("time"))
    assert line == {
        "level": "info",
        "logger": "modelpack.prefetch.test",
        "message": "ready after 3.2 s",
        "model": "chat",
        "digest": "sha256:00",
    }
    assert moment.tzinfo == UTC
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 60


def test_a_time_is_rfc_3339_with_milliseconds():
    assert logs._rfc3339(1_767_225_600.5) == "2026-01-01T00:00:00.500Z"
    assert logs._rfc3339(1_767_225_600) == "2026-01-01T00:00:00.000Z"


def test_nothing_in_a_message_makes_a_second_line(log):
    nasty = 'a\nb\r\u2028{"level": "info"}\x1b[31m\udc80'
    # To the configured handler alone: the test runner cannot pass on what it captures of this.
    (handler,) = (item for item in logging.getLogger().handlers if item.stream is log)
    handler.handle(
        LOGGER.makeRecord(
            LOGGER.name, logging.WARNING, "", 0, nasty, (), None, extra={"model": "x\ny"}
        )
    )
    (line,) = lines(log)
    assert line["message"] == 'a\nb\r\u2028{"level": "info"}\x1b[31m\udc80'
    assert line["model"] == "x\ny"
    assert log.getvalue().isascii()
    assert log.getvalue().count("\n") == 1


def test_an_exception_is_in_the_same_object(log):
    try:
        int("no: password=hunter2")
    except ValueError:
        LOGGER.exception("it failed")
    (line,) = lines(log)
    assert line["message"] == "it failed"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("'no: password=[removed]'")


@pytest.mark.parametrize(
    ("message", "extra"),
    [
        ("pulled from https://u:hunter2@r.example/m?sig=hunter2", {}),
        ("it said: Bearer hunter2hunter2", {}),
        ("fine", {"reference": "r.example/m:v1?token=hunter2"}),
        ("fine", {"model": "u:hunter2@r.example/m"}),
    ],
)
def test_secrets_do_not_get_in(log, message, extra):
    LOGGER.error("%s", message, extra=extra)
    assert "hunter2" not in log.getvalue()
    assert len(lines(log)) == 1


def test_a_key_in_an_exception_does_not_get_in(log):
    key = "-----BEGIN PRIVATE KEY-----\nhunter2\nhunter2\n-----END PRIVATE KEY-----"
    LOGGER.error("bad", exc_info=ValueError(f"cannot read {key}, sorry"))
    (line,) = lines(log)
    assert "hunter2" not in line["exception"]
    assert line["exception"] == "ValueError: cannot read [removed], sorry"


def test_of_a_long_traceback_the_end_is_kept(log):
    LOGGER.error("bad", exc_info=ValueError("x" * 100_000 + "the end"))
    assert lines(log)[0]["exception"].endswith("xxx" + "the end")
    assert len(log.getvalue()) < 20_000


def test_other_extra_members_are_left_out(log):
    LOGGER.info("x", extra={"password": "hunter2", "digest": None})
    assert set(lines(log)[0]) == {"time", "level", "logger", "message"}


def test_a_message_that_does_not_fit_its_arguments_is_shown_as_it_is():
    record = logging.LogRecord("a", logging.INFO, __file__, 1, "%d models", ("many",), None)
    assert json.loads(logs.JsonFormatter().format(record))["message"] == "%d models ('many',)"


def test_configuring_again_does_not_double_the_lines(log):
    logs.configure(level="warning", stream=log)
    LOGGER.info("not this")
    LOGGER.warning("once")
    assert [line["message"] for line in lines(log)] == ["once"]


def test_libraries_are_heard_when_they_warn(log):
    logging.getLogger("httpx").info("HTTP Request: GET https://r.example/?token=hunter2")
    logging.getLogger("httpx").warning("slow")
    warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert [line["logger"] for line in lines(log)] == ["httpx", "py.warnings"]


def test_a_log_that_cannot_be_written_stops_nobody(log):
    closed = io.StringIO()
    logs.configure(stream=closed)
    closed.close()
    LOGGER.info("to nobody")


def test_levels_have_names():
    with pytest.raises(UsageError, match="'loud' is none of debug, info, warning, error"):
        logs.configure(level="loud")
