"""``modelpack daemon status`` and its companions, as their user meets them."""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

import pytest

from modelpack.prefetch.status import (
    BudgetStatus,
    ConfigurationStatus,
    RuntimeStatus,
    Stage,
    Totals,
)
from tests.support.command import PROGRAM, Command
from tests.support.inprocess import InProcess
from tests.support.statuses import CANDIDATE, DIGEST, GIB, model, status
from tests.support.webdaemon import SECONDS, Daemon

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def command(capsys):
    return InProcess(capsys)


@pytest.fixture
def daemon(tmp_path):
    daemon = Daemon(tmp_path)
    with daemon.serve() as endpoints:
        daemon.url = endpoints.url
        yield daemon


def busy():
    now = time.time()
    return status(
        model("chat", mounted=True, used_at=now),
        model(
            "code",
            Stage.DOWNLOADING,
            bytes=10 * GIB,
            fetched_bytes=3 * GIB,
            reused_bytes=2 * GIB,
            candidate=CANDIDATE,
            timings={"Downloading": 3.0},
        ),
        model(
            "guard", Stage.REFUSED, reason="no signature\x1b[31m; sign it", next_attempt=now + 90
        ),
        now=now,
        totals=Totals(fetched_bytes=GIB, reused_bytes=3 * GIB),
    )


def on_terminal(*arguments, columns=120, until=None):
    """What appears on a terminal, and the exit status; ``until`` is what to wait for."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 50, columns, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    for name in ("NO_COLOR", "COLUMNS", "LINES", "CI"):
        env.pop(name, None)
    with subprocess.Popen(
        [PROGRAM, *map(str, arguments)], stdin=follower, stdout=follower, stderr=follower, env=env
    ) as process:
        os.close(follower)
        shown, deadline = b"", time.monotonic() + SECONDS
        try:
            while time.monotonic() < deadline:
                if until is not None and until(ANSI.sub("", shown.decode(errors="replace"))):
                    process.send_signal(2)
                    until = None
                ready, _, _ = select.select([leader], [], [], 0.2)
                if ready:
                    try:
                        shown += os.read(leader, 65536)
                    except OSError:  # the last one with the terminal open is gone
                        break
            else:
                process.kill()
        finally:
            os.close(leader)
        return process.wait(SECONDS), ANSI.sub("", shown.decode(errors="replace"))


def test_a_ready_node(command, daemon):
    done = command.run("daemon", "status", "--socket", daemon.socket)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].startswith(
        "node-a  ready  modelpack 1.2.3, containerd, up 1d 1h"
    )
    assert done.stderr == ""


def test_in_a_pipe_every_model_is_one_whole_line(command, daemon):
    daemon.status = busy()
    done = command.run("daemon", "status", "--socket", daemon.socket)
    assert done.returncode == 10
    lines = done.stdout.splitlines()
    assert lines[0].startswith("node-a  not ready  ")
    assert (
        lines[1]
        == "1 of 3 models on the node, 1 in trouble, 1 in use or used since; 1.0 GiB fetched, 3.0 GiB reused"
    )
    assert lines[2] == "disk: 8.0 GiB and 2.0 GiB reserved of 20.0 GiB; evicts above 18.0 GiB"
    head = lines.index(next(line for line in lines if line.startswith("MODEL")))
    chat, code, guard = lines[head + 1 :]
    assert chat.split() == ["chat", "Ready", "4.0", "GiB", "mounted", DIGEST]
    assert code.startswith("code   Downloading  5.0 GiB of 10.0 GiB, 1.0 GiB/s, 5s left")
    assert guard.endswith("no signature\\x1b[31m; sign it")


def test_json_is_what_the_daemon_says(command, daemon):
    daemon.status = busy()
    done = command.run("daemon", "status", "--url", daemon.url, "--json")
    assert done.returncode == 10
    assert json.loads(done.stdout) == json.loads(json.dumps(daemon.status.to_json()))


def test_on_a_terminal_there_are_bars(daemon):
    daemon.status = busy()
    code, shown = on_terminal("daemon", "status", "--socket", daemon.socket)
    assert code == 10
    assert "● chat   Ready" in shown
    assert "◐ code   Downloading       ━━━━━━━━━━━━━━━━━━━━━━━━  50%  5.0 GiB of 10.0 GiB" in shown
    assert "✖ guard  Refused" in shown
    assert "no signature\\x1b[31m; sign it (next try in 1m" in shown
    assert "█" in shown
    assert "8.0 GiB and 2.0 GiB reserved of 20.0 GiB; evicts above 18.0 GiB" in shown


@pytest.mark.parametrize("columns", [40, 80])
def test_no_line_is_wider_than_the_terminal(daemon, columns):
    daemon.status = busy()
    _, shown = on_terminal("daemon", "status", "--socket", daemon.socket, columns=columns)
    assert all(len(line) <= columns for line in shown.splitlines())


def test_what_is_wrong_is_said(command, daemon):
    daemon.status = status(
        model("a", Stage.PENDING),
        budget=BudgetStatus(limit=GIB, used=2 * GIB, reserved=0, high=GIB, low=GIB),
        runtime=RuntimeStatus(kind="containerd", reachable=False, reason="connection refused"),
        configuration=ConfigurationStatus(path="x", loaded_at=1.0, generation=1, error="line 3"),
        stopping=True,
    )
    done = command.run("daemon", "status", "--socket", daemon.socket)
    assert done.returncode == 10
    assert "runtime: connection refused\n" in done.stdout
    assert "configuration turned down, the one before stays in force: line 3\n" in done.stdout
    assert "the daemon is stopping\n" in done.stdout
    assert "disk: 2.0 GiB of 1.0 GiB; over the budget\n" in done.stdout


def test_watching_shows_changes_until_interrupted(daemon):
    daemon.status = status(model("code", Stage.DOWNLOADING, fetched_bytes=GIB))
    seen = []

    def until(shown):
        if not seen and "Downloading" in shown:
            seen.append("Downloading")
            daemon.status = status(model("code"))
        return "● code  Ready" in shown

    code, shown = on_terminal("daemon", "status", "--watch", "--socket", daemon.socket, until=until)
    assert code == 0, shown


def test_watching_outlives_the_daemon(tmp_path):
    daemon = Daemon(tmp_path)
    with daemon.serve() as endpoints:
        context = []

        def until(shown):
            if not context and "chat" in shown:
                context.append(daemon.socket.rename(tmp_path / "away"))
            return "no daemon answers there" in shown

        code, shown = on_terminal(
            "daemon", "status", "-w", "--socket", endpoints.socket_path, until=until
        )
        (tmp_path / "away").rename(daemon.socket)
    assert code == 10, shown


def test_watching_in_a_pipe_is_a_document_a_line(tmp_path, daemon):
    process = Command(tmp_path / "home").start(
        "daemon", "status", "--watch", "--json", "--socket", daemon.socket
    )
    with process:
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(2)
        process.communicate(timeout=SECONDS)
    assert [json.loads(line)["node"] for line in lines] == ["node-a", "node-a"]
    assert process.returncode == 0


def test_watching_in_a_pipe_needs_json(command, daemon):
    done = command.run("daemon", "status", "--watch", "--socket", daemon.socket)
    assert done.returncode == 2
    assert "in a pipe, add --json" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hold", "chat"], "hold: chat"),
        (["release", "chat"], "release: chat"),
        (["refresh", "chat"], "refresh: chat"),
        (["refresh", "--all"], "refresh: all"),
        (["hold", "registry.example/a b:v1"], "hold: registry.example/a b:v1"),
    ],
)
def test_asking(command, daemon, arguments, said):
    done = command.run("daemon", *arguments, "--socket", daemon.socket)
    assert (done.returncode, done.stdout) == (0, f"{said}\n")
    assert command.json("daemon", *arguments, "--socket", daemon.socket) == {"done": said}


@pytest.mark.parametrize(
    ("code", "arguments", "said"),
    [
        (3, ["hold", "other"], "no model is called other"),
        (2, ["rollback", "chat"], "there is no earlier version"),
        (2, ["refresh"], "name one model, or say --all"),
        (2, ["scrub", "chat", "--all"], "name one model, or say --all"),
        (2, ["hold"], "Missing argument"),
        (2, ["hold", "chat", "--config", "x.yaml"], "one of --config and --socket"),
        (1, ["scrub", "chat"], "by a fault of its own"),
    ],
)
def test_refusals(command, daemon, code, arguments, said):
    done = command.run("daemon", *arguments, "--socket", daemon.socket)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_nobody_there(command, tmp_path):
    for arguments in (["status"], ["hold", "chat"]):
        done = command.run("daemon", *arguments, "--socket", tmp_path / "none.sock")
        assert done.returncode == 7
        assert "no daemon answers there" in done.stderr
    assert command.run("daemon", "status", "--url", "nonsense").returncode == 2
    done = command.run("daemon", "status", "--url", "http://x", "--socket", "y")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_configuration_says_where_the_daemon_is(command, daemon, tmp_path):
    config = tmp_path / "daemon.yaml"
    config.write_text(
        f"store: {tmp_path}\nbudget: 1Gi\nlisten: {daemon.url.removeprefix('http://').rstrip('/')}\n"
        f"runtime: {{kind: directory, path: {tmp_path}/models}}\nmodels: []\n"
    )
    done = command.run("daemon", "status", "--config", config)
    assert done.returncode == 0, done.stderr
    daemon.socket.rename(tmp_path / "elsewhere")
    done = command.run("daemon", "status", "--config", config)
    assert done.returncode == 0, done.stderr
    (tmp_path / "elsewhere").rename(daemon.socket)
    config.write_text("nonsense: 1\n")
    done = command.run("daemon", "status", "--config", config)
    assert done.returncode == 2
    assert "nonsense is not known; until that is mended, name the daemon by --socket" in done.stderr
