"""``modelpack daemon --config FILE`` as a process: checking, running, signals, kills."""

import json
import random
import re
import shutil
import signal
import time

import pytest
import yaml

import modelpack
from tests.support.command import Command, complaint
from tests.support.faultregistry import Fault, FaultRegistry
from tests.support.models import one_shard, read_tree, write_files

PATIENCE = 90
MIB = 1024 * 1024
KILLS = 8


@pytest.fixture
def command(tmp_path):
    return Command(tmp_path / "home", env={"MODELPACK_NODE_NAME": "node-1"})


@pytest.fixture
def source(tmp_path):
    return write_files(
        tmp_path / "model",
        {"weights.safetensors": one_shard(range(24), size=MIB // 2), "config.json": b"{}"},
    )


@pytest.fixture
def configure(tmp_path):
    def write(*references, **more):
        document = {
            "store": str(tmp_path / "store"),
            "budget": "200Mi",
            "listen": "127.0.0.1:0",
            "runtime": {"kind": "directory", "path": str(tmp_path / "models")},
            "models": [{"ref": reference} for reference in references],
            **more,
        }
        path = tmp_path / "daemon.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


class Running:
    """A daemon process; a context manager that leaves none behind."""

    def __init__(self, command, config, log):
        self._command, self._config = command, config
        self._log = log

    def __enter__(self):
        self.process = self._command.start("daemon", "--config", self._config)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.log = self.process.communicate(timeout=PATIENCE)[1]
        self._log.append(self.log)

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait(PATIENCE)

    def status(self):
        found = self._command.run("daemon", "status", "--config", self._config, "--json")
        return json.loads(found.stdout) if found.stdout else None

    def until(self, condition):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.process.communicate()[1]
            status = self.status()
            if status is not None and condition(status):
                return status
            time.sleep(0.1)
        raise AssertionError(f"nothing came of it: {self.status()}")


def is_ready(status):
    return bool(status["models"]) and all(model["digest"] for model in status["models"])


def test_a_good_configuration_is_summed_up(command, configure):
    config = configure("registry.example/a:v1", "registry.example/b:v1")
    done = command.run("daemon", "--check", "--config", config)
    assert done.returncode == 0
    first, second = done.stdout.splitlines()
    assert first.startswith("good: node node-1, 200.0 MiB in ")
    assert first.endswith("no policy: every model is let through")
    assert second == "2 of 2 models for this node: registry.example/a:v1, registry.example/b:v1"
    assert command.json("daemon", "--check", "--config", config) == {
        "node": "node-1",
        "models": ["registry.example/a:v1", "registry.example/b:v1"],
        "budget": 200 * MIB,
        "policy": None,
        "notes": [],
    }


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ({"caFile": "none.pem"}, "caFile: .*none.pem cannot be read here: No such file"),
        ({"authFile": "/"}, "authFile: / cannot be read here: Is a directory"),
        ({"minFree": "900Ti"}, "minFree: the disk has .* left and is to keep 900.0 TiB; nothing"),
        (
            {"runtime": {"kind": "containerd", "address": "/none.sock"}},
            (
                "runtime: cannot reach containerd at /none.sock: there is no such socket; start it, "
                "or name its socket as runtime.address"
            ),
        ),
        (
            {"runtime": {"kind": "directory", "path": f"/{'long' * 100}"}},
            "runtime: cannot use /long.*: File name too long",
        ),
    ],
    ids=["ca", "login", "disk", "socket", "path"],
)
def test_what_is_not_there_is_noted_and_makes_no_configuration_bad(command, configure, more, note):
    config = configure("registry.example/a:v1", **more)
    done = command.run("daemon", "--check", "--config", config)
    assert done.returncode == 0, done.stderr
    assert re.match("not on this machine as it is now: " + note, done.stdout.splitlines()[2])
    (told,) = command.json("daemon", "--check", "--config", config)["notes"]
    assert re.match(note, told)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"budgt": 1}, "budgt is not known; did you mean budget?"),
        ({"policy": "none.yaml"}, "none.yaml does not exist"),
        ({"listen": "0.0.0.0:9464"}, "allowRemote"),
    ],
    ids=["unknown", "policy", "remote"],
)
def test_a_bad_configuration_is_one_line_and_exit_2(command, configure, more, words):
    done = command.run("daemon", "--check", "--config", configure("r.example/a:v1", **more))
    assert done.returncode == 2
    assert words in complaint(done)
    assert done.stdout == ""


def test_a_missing_configuration_is_exit_2(command, tmp_path):
    done = command.run("daemon", "--check", "--config", tmp_path / "none.yaml")
    assert done.returncode == 2
    assert "does not exist" in complaint(done)


def test_a_bad_configuration_does_not_start(command, configure):
    done = command.run("daemon", "--config", configure("r.example/a:v1", budgt=1))
    assert done.returncode == 2
    assert "budgt is not known" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--check"], "name the configuration"), (["--json", "--config", "x"], "goes with --check")],
    ids=["no-config", "json"],
)
def test_what_does_not_go_together(command, arguments, words):
    done = command.run("daemon", *arguments)
    assert done.returncode == 2
    assert words in complaint(done)


def test_a_daemon_brings_a_model_and_stops_when_told(command, configure, source, tmp_path):
    with FaultRegistry() as registry:
        reference = f"{registry.host}/team/model:v1"
        modelpack.push(source, reference)
        config = configure(reference)
        logs = []
        with Running(command, config, logs) as daemon:
            status = daemon.until(is_ready)
            assert status["models"][0]["stage"] == "Ready"
            assert status["ready"] is True
            again = command.run("daemon", "--config", config)
            assert again.returncode == 2
            assert "another modelpack daemon runs with the store" in again.stderr
            held = command.run("daemon", "hold", reference, "--config", config)
            assert "is held at sha256:" in held.stdout
            assert daemon.stop() == 0
        assert not (tmp_path / "store" / "control.sock").exists()
        lines = [json.loads(line) for line in logs[0].splitlines()]
        assert any(line["message"].startswith("ready;") for line in lines)


def test_a_daemon_that_is_killed_again_and_again_finishes_alone(
    command, configure, source, tmp_path
):
    chance = random.Random(11)
    with FaultRegistry() as registry:
        reference = f"{registry.host}/team/model:v1"
        modelpack.push(source, reference)
        config = configure(reference)
        registry.faults.add(Fault.slow(8 * MIB, kind="blob"))
        logs = []
        for _ in range(KILLS):
            with Running(command, config, logs) as daemon:
                time.sleep(chance.uniform(0.2, 1.5))
                daemon.process.kill()
        registry.faults.clear()
        with Running(command, config, logs) as daemon:
            daemon.until(is_ready)
            assert daemon.stop() == 0
    assert not any("Traceback" in log for log in logs)
    (found,) = [
        path.parent for path in (tmp_path / "models" / "versions").glob("*/weights.safetensors")
    ]
    expected = read_tree(source)
    for path, (_, data) in expected.items():
        assert (found / path).read_bytes() == data
    state = json.loads((tmp_path / "store" / "daemon" / "state.json").read_text())["value"]
    assert state["reservations"] == {}
    assert list((tmp_path / "models" / "partial").iterdir()) == []
    shutil.rmtree(tmp_path / "models")
