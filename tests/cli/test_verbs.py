"""The command line as a user meets it: run as a program, judged by status and output."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import modelpack
from tests.support.faultregistry import BearerAuth, FaultRegistry
from tests.support.models import one_shard, read_tree, write_files

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run ``modelpack`` with a home of its own."""
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    for name, value in home.items():
        monkeypatch.setenv(name, value)

    def call(*arguments, stdin=None, env=None):
        return subprocess.run(
            [sys.executable, "-c", "from modelpack.cli import main; main()", *map(str, arguments)],
            input=stdin,
            env={**os.environ, **home, **(env or {})},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return call


@pytest.fixture
def model(tmp_path):
    return write_files(
        tmp_path / "model",
        {"model.safetensors": one_shard(range(4)), "config.json": b"{}", "a/b.txt": b"x"},
    )


def failed(done, status, *words):
    """Require a status, one line on stderr with these words, and nothing on stdout."""
    assert done.returncode == status, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("modelpack: ")
    assert done.stderr.count("Usage:") == 0
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in last
    return last


@pytest.mark.parametrize("words", [[], ["cdi"], ["policy"]])
def test_without_a_verb_help_is_shown(run, words):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Usage: {' '.join(['modelpack', *words])} [OPTIONS] COMMAND")
    assert "\nCommands:\n" in done.stderr


@pytest.mark.parametrize("arguments", [("push", "", "oci:store:v1"), ("pull", "oci:store:v1", "")])
def test_an_unset_variable_is_not_the_directory_one_is_in(run, model, arguments):
    assert run("push", model, "oci:store:v1").returncode == 0
    before = read_tree(model.parent)
    failed(run(*arguments), 2, "the name of a directory is empty")
    assert read_tree(model.parent) == before


def test_a_verb_that_is_nearly_one(run):
    failed(run("pul"), 2, "No such command 'pul'", "Did you mean 'pull'?")


def test_verify_says_whether_it_read_anything(run, model):
    run("push", model, "oci:store:v1")
    unread = "all blobs are there, --full reads them"
    assert unread in run("verify", "oci:store:v1").stdout
    assert unread not in run("verify", "oci:store:v1", "--full").stdout
    run("pull", "oci:store:v1", "out")
    assert unread not in run("verify", "out").stdout


def test_version_as_an_option(run):
    assert run("--version").stdout == f"modelpack {modelpack.__version__}\n"


def test_push_pull_verify_json_contract(run, model, tmp_path):
    pushed = json.loads(run("push", model, "oci:store:v1", "--json").stdout)
    assert {"reference", "digest", "files", "layers", "chunks", "bytes", "uploaded_bytes",
            "reused_bytes", "seconds"} <= pushed.keys()  # fmt: skip
    pulled = json.loads(run("pull", "oci:store:v1", "out", "--json").stdout)
    assert {"reference", "digest", "files", "bytes", "fetched_bytes", "reused_bytes", "seconds",
            "verified"} <= pulled.keys()  # fmt: skip
    assert pulled["digest"] == pushed["digest"]
    assert pulled["files"] == 3
    report = json.loads(run("verify", "out", "--json").stdout)
    assert (report["ok"], report["missing"], report["changed"], report["extra"]) == (
        True,
        [],
        [],
        [],
    )
    assert read_tree(tmp_path / "out") == read_tree(model)


def test_a_rate_is_said_of_what_is_worth_one(run, tmp_path):
    write_files(tmp_path / "large", {"model.safetensors": one_shard(range(4), size=1_000_000)})
    write_files(tmp_path / "small", {"config.json": b"{}"})
    for name, told in (("large", True), ("small", False)):
        run("push", name, f"oci:store:{name}")
        pulled = run("pull", f"oci:store:{name}", f"{name}-pulled")
        assert pulled.returncode == 0, pulled.stderr
        assert pulled.stdout.rstrip().endswith("/s") is told, pulled.stdout


def test_verify_names_faults_and_exits_5(run, model, tmp_path):
    run("push", model, "oci:store:v1")
    run("pull", "oci:store:v1", "out")
    (tmp_path / "out" / "config.json").write_bytes(b"[]")
    (tmp_path / "out" / "a" / "b.txt").unlink()
    (tmp_path / "out" / "new").write_bytes(b"")
    done = run("verify", "out")
    assert done.returncode == 5
    assert done.stdout.splitlines() == ["missing: a/b.txt", "changed: config.json", "extra: new"]
    done = run("verify", "out", "--json")
    assert done.returncode == 5
    assert json.loads(done.stdout)["ok"] is False


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        pytest.param(["pull", "nohost", "out"], 2, ["registry host"], id="reference"),
        pytest.param(["pull", "https://r.example/m:v1", "out"], 2, ["URL"], id="url"),
        pytest.param(["pull", "r.example/M:v1", "out"], 2, ["repository name"], id="upper-case"),
        pytest.param(["pull", "r.example/m:v1@sha256:1", "out"], 2, ["hex"], id="digest"),
        pytest.param(["pull", "oci:store:v9", "out"], 3, ["v9", "v1"], id="tag-not-there"),
        pytest.param(["pull", "oci:nowhere:v1", "out"], 3, ["nowhere"], id="layout-not-there"),
        pytest.param(["push", "nowhere", "oci:store:v1"], 3, ["nowhere"], id="no-directory"),
        pytest.param(["push", "model/config.json", "oci:store:v1"], 2, ["directory"], id="push-a-file"),
        pytest.param(["push", "model", "oci:store:v1", "--annotation", "x"], 2, ["KEY=VALUE"], id="annotation"),
        pytest.param(["push", "model", "oci:store:v1", "--annotation", "dev.modelpack.format=2"], 2, ["own"], id="own-annotation"),
        pytest.param(["push", "model", "oci:store:v1", "--platform", "arm"], 2, ["OS/ARCH"], id="platform"),
        pytest.param(["push", "model", "oci:model:v1"], 5, ["no OCI layout"], id="push-into-a-model"),
        pytest.param(["pull", "oci:store:v1", "out", "--limit-rate", "fast"], 2, ["rate"], id="rate"),
        pytest.param(["pull", "oci:store:v1", "out", "--verify", "hope"], 2, ["--verify"], id="verify-level"),
        pytest.param(["pull", "oci:store:v1", "out", "--include", "*.gguf"], 3, ["--include"], id="nothing-selected"),
        pytest.param(["pull", "oci:store:v1", "out", "--seed", "nowhere"], 3, ["nowhere"], id="seed"),
        pytest.param(["pull", "oci:store:v1", "model/config.json"], 2, ["not a directory"], id="dest-is-a-file"),
        pytest.param(["pull", "oci:store:v1", "model"], 2, ["--force"], id="dest-holds-other-files"),
        pytest.param(["verify", "model"], 3, ["not pulled"], id="verify-a-stranger"),
        pytest.param(["verify", "./nowhere"], 3, ["nowhere"], id="verify-nothing"),
        pytest.param(["pull", "127.0.0.1:1/m/m:v1", "out"], 7, ["refused"], id="nobody-there"),
        pytest.param(["pull", "oci:store:v1"], 2, ["directory"], id="argument-missing"),
        pytest.param(["pull", "oci:store:v1", "out", "--nope"], 2, ["--nope"], id="option"),
        pytest.param(["pull", "oci:store:v1", "out", "--include"], 2, ["see: modelpack pull --help"], id="option-without-value"),
        pytest.param(["frobnicate"], 2, ["frobnicate"], id="verb"),
        pytest.param(["logout", "r.example"], 3, ["r.example"], id="not-logged-in"),
        pytest.param(["login", "r.example"], 2, ["--username"], id="login-without-user"),
        pytest.param(["copy", "oci:store:v1", "oci:other@sha256:" + "0" * 64], 2, ["tag"], id="copy-to-digest"),
        pytest.param(["pull", "oci:store:v1", "out", "--ca-file", "nowhere.pem"], 0, [], id="ca-file-unused"),
    ],
)  # fmt: skip
def test_mistakes(arguments, status, words, run, model):
    run("push", model, "oci:store:v1")
    (model / "config.json").write_bytes(b'{"other": 1}')
    done = run(*arguments)
    if status == 0:
        assert done.returncode == 0
    else:
        failed(done, status, *words)
        assert done.stdout == ""


def test_names_do_not_drive_the_terminal(run):
    last = failed(run("push", "no\x1b[2J\x07where", "oci:store:v1"), 3, "does not exist")
    assert "\x1b" not in last
    assert "\x07" not in last


def test_login_stores_and_logout_removes(run, model, tmp_path):
    auth = BearerAuth(users={"ada": "s3cret-word"})
    with FaultRegistry(auth=auth) as registry:
        reference = f"{registry.host}/team/model:v1"
        failed(run("push", model, reference), 4, f"modelpack login {registry.host}")
        wrong = run("login", registry.host, "-u", "ada", "--password-stdin", stdin="wrong-word\n")
        last = failed(wrong, 4, registry.host)
        assert "wrong-word" not in last
        done = run("login", registry.host, "-u", "ada", "--password-stdin", stdin="s3cret-word\n")
        assert done.returncode == 0, done.stderr
        stored = tmp_path / "home" / ".docker" / "config.json"
        assert stored.stat().st_mode & 0o777 == 0o600
        assert "s3cret-word" not in stored.read_text() + done.stdout + done.stderr
        assert run("push", model, reference, "--json").returncode == 0
        done = run("pull", reference, "out", "--debug")
        assert done.returncode == 0
        assert "s3cret-word" not in done.stderr + done.stdout
        assert run("logout", registry.host).returncode == 0
        failed(run("pull", reference, "again"), 4)
        assert registry.violations == []


def test_progress_lines_on_a_pipe_and_silence_when_asked(run, model):
    done = run("push", model, "oci:store:v1")
    assert done.stdout.startswith("pushed oci:store:v1@sha256:")
    done = run("pull", "oci:store:v1", "out")
    assert done.stderr.startswith("modelpack: pulling oci:store:v1 (sha256:")
    assert "\x1b" not in done.stderr + done.stdout
    assert run("pull", "oci:store:v1", "out", "--quiet").stderr == ""


def test_debug_shows_a_traceback(run):
    assert "Traceback" in run("pull", "oci:nowhere:v1", "out", "--debug").stderr


def test_version_names_what_it_stands_on(run):
    parts = json.loads(run("version", "--json").stdout)
    assert parts["modelpack"] == modelpack.__version__
    assert {"blake3", "httpx", "oras", "typer"} <= parts.keys()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell, run):
    script = run(env={"_MODELPACK_COMPLETE": f"source_{shell}"}).stdout
    assert "_MODELPACK_COMPLETE" in script
    completed = run(
        env={
            "_MODELPACK_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": "modelpack pu",
            "COMP_CWORD": "1",
            "_TYPER_COMPLETE_ARGS": "modelpack pu",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
    ).stdout
    assert "push" in completed
    assert "pull" in completed
    assert "verify" not in completed


def test_a_reader_that_stops_reading_is_no_error(run, model, tmp_path):
    run("push", model, "oci:store:v1")
    done = subprocess.run(
        f"{sys.executable} -c 'from modelpack.cli import main; main()' tags oci:store | true",
        shell=True, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert "Traceback" not in done.stderr


def test_tags_and_copy(run, model):
    run("push", model, "oci:store:v1")
    run("push", model, "oci:store:v2", "--no-modelpack")
    assert run("tags", "oci:store").stdout.split() == ["v1", "v1-modelpack", "v2"]
    done = run("copy", "oci:store:v1", "oci:other:v3", "--json")
    assert json.loads(done.stdout)["digest"].startswith("sha256:")
    assert run("tags", "oci:other", "--json").stdout == (
        '{"reference": "oci:other", "tags": ["v3", "v3-modelpack"]}\n'
    )


def test_documentation_of_the_commands_is_current():
    done = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--check"])
    assert done.returncode == 0, "run: make docs"
