"""The scripts in examples/ci, run with the variables that the CI systems set."""

import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from tests.support.command import PROGRAM
from tests.support.models import write_files
from tests.support.trust import PASSWORD, TrustCommand
from tests.unit.signing.sigstore_services import IDENTITY, Deployment

CI = Path(__file__).resolve().parents[2] / "examples/ci"
GITHUB = yaml.safe_load((CI / "github/action.yml").read_text())
WORKFLOW = yaml.safe_load((CI / "github/release.yml").read_text())
GITLAB = yaml.safe_load((CI / "gitlab/modelpack-sign.gitlab-ci.yml").read_text())
TEKTON = yaml.safe_load((CI / "tekton/sign-model.yaml").read_text())


class Ci:
    """One CI system: runs its signing script on inputs, in variables as that system sets them."""

    def __init__(self, directory, command):
        self.directory = directory
        self.command = command
        self.env = {
            name: command.env[name]
            for name in (
                "HOME",
                "XDG_CACHE_HOME",
                "XDG_STATE_HOME",
                "XDG_CONFIG_HOME",
                "PYTHONPATH",
            )
            if name in command.env
        }
        self.env["PATH"] = f"{PROGRAM.parent}:{os.environ['PATH']}"

    def _run(self, argv, env):
        return subprocess.run(
            argv, env=self.env | env, cwd=self.directory, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip


class Github(Ci):
    def sign(self, ref, digest, mode="key", trust_config="", **secrets):
        step = GITHUB["runs"]["steps"][0]
        inputs = {name: value.get("default", "") for name, value in GITHUB["inputs"].items()}
        inputs |= {"ref": ref, "digest": digest, "mode": mode, "trust-config": str(trust_config)}
        given = {
            name: inputs[text.removeprefix("${{ inputs.").removesuffix(" }}")]
            for name, text in step["env"].items()
        }
        output = self.directory / "output"
        output.write_text("")
        runner = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(output),
            "RUNNER_TEMP": str(self.directory),
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REPOSITORY": "o/r",
            "GITHUB_SHA": "a" * 40,
            "GITHUB_REF": "refs/heads/main",
            "GITHUB_RUN_ID": "17",
        }
        # How GitHub runs a step with "shell: bash".
        script = self.directory / "step.sh"
        script.write_text(step["run"])
        done = self._run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", script], runner | given | secrets
        )
        lines = output.read_text().splitlines()
        return done, dict(line.split("=", 1) for line in lines)


class Gitlab(Ci):
    def sign(self, ref, digest, mode="key", trust_config="", **secrets):
        job = GITLAB[".modelpack-sign"]
        given = {
            **job["variables"],
            "MODELPACK_REF": ref,
            "MODELPACK_DIGEST": digest,
            "MODELPACK_MODE": mode,
            "MODELPACK_TRUST_CONFIG": str(trust_config),
            "GITLAB_CI": "true",
            "CI_PROJECT_URL": "https://gitlab.example/o/r",
            "CI_COMMIT_SHA": "a" * 40,
        }
        done = self._run(["sh", "-e", "-c", "\n".join(job["script"])], given | secrets)
        reported = self.directory / "sign.env"
        if not reported.exists():
            return done, {}
        values = dict(line.split("=", 1) for line in reported.read_text().splitlines())
        [bundle] = job["artifacts"]["paths"]
        return done, {"digest": values["MODELPACK_SIGNED_DIGEST"],
                      "bundle": str(self.directory / bundle)}  # fmt: skip


class Tekton(Ci):
    def sign(self, ref, digest, mode="key", trust_config="", **secrets):
        params = {one["name"]: one.get("default", "") for one in TEKTON["spec"]["params"]}
        params |= {"ref": ref, "digest": digest, "mode": mode, "trust-config": str(trust_config)}
        known = {f"params.{name}": value for name, value in params.items()}
        for name in ("digest", "bundle"):
            known[f"results.{name}.path"] = str(self.directory / name)
        known |= {
            "workspaces.output.path": str(self.directory),
            "workspaces.docker-config.path": "",
            "context.task.name": "sign-model",
            "context.taskRun.name": "sign-model-x1",
            "context.taskRun.uid": "uid",
            "context.taskRun.namespace": "ci",
        }
        [step] = TEKTON["spec"]["steps"]
        given = {
            one["name"]: known[one["value"].removeprefix("$(").removesuffix(")")]
            for one in step["env"]
            if "value" in one
        }
        script = self.directory / "script"
        script.write_text(step["script"])
        script.chmod(0o755)
        argv = [script]
        token = secrets.pop("SIGSTORE_ID_TOKEN", None)
        if token is not None:
            # The projected token, where the task mounts it; the machine's own /run stays as it is.
            [mount] = step["volumeMounts"]
            [source] = TEKTON["spec"]["volumes"][0]["projected"]["sources"]
            place = f"{mount['mountPath']}/{source['serviceAccountToken']['path']}"
            (self.directory / "oidc-token").write_text(token)
            inside = (
                'mount -t tmpfs tmpfs /run && mkdir -p "$(dirname "$1")" && '
                'cp "$2" "$1" && exec "$3"'
            )
            argv = ["unshare", "--mount", "sh", "-c", inside, "sh", place,
                    self.directory / "oidc-token", script]  # fmt: skip
        done = self._run(argv, given | secrets)
        results = {
            name: (self.directory / name).read_text()
            for name in ("digest", "bundle")
            if (self.directory / name).exists()
        }
        return done, results


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    return TrustCommand(tmp_path_factory.mktemp("command"))


@pytest.fixture(scope="module")
def pushed(command):
    model = write_files(command.directory / "model", {"config.json": b'{"model_type":"llama"}'})
    return command.json("push", model, f"oci:{command.directory / 'store'}:v1")


@pytest.fixture(scope="module")
def secrets(command):
    """What the CI system's own store of secrets puts into the environment."""
    private, _ = command.key_pair("ci")
    return {"MODELPACK_SIGNING_KEY": private.read_text(), "MODELPACK_KEY_PASSWORD": PASSWORD}


@pytest.fixture(params=[Github, Gitlab, Tekton], ids=lambda kind: kind.__name__.lower())
def ci(request, command, tmp_path):
    directory = tmp_path / "ci"
    directory.mkdir()
    return request.param(directory, command)


def name_of(pushed):
    return pushed["reference"].rpartition(":")[0]


def test_with_a_key(ci, command, pushed):
    private, public = command.key_pair(type(ci).__name__)
    secrets = {"MODELPACK_SIGNING_KEY": private.read_text(), "MODELPACK_KEY_PASSWORD": PASSWORD}
    done, outputs = ci.sign(pushed["reference"], pushed["digest"], **secrets)
    assert done.returncode == 0, done.stdout + done.stderr
    assert outputs["digest"] == pushed["digest"]
    bundle = json.loads(Path(outputs["bundle"]).read_text())
    assert bundle["mediaType"].startswith("application/vnd.dev.sigstore.bundle")
    found = command.json(
        *("verify", pushed["reference"], "--key", public),
        *("--require-attestation", "sbom", "--require-attestation", "provenance"),
    )
    assert found["ok"]
    assert PASSWORD not in done.stdout + done.stderr
    # Again, as a retried job does: the same outputs, and nothing is signed twice.
    done, again = ci.sign(pushed["reference"], pushed["digest"], **secrets)
    assert done.returncode == 0
    assert Path(again["bundle"]).read_text() == Path(outputs["bundle"]).read_text()


@pytest.mark.parametrize(
    ("digest", "mode"),
    [
        ("v1", "key"),
        ("", "key"),
        ("latest", "keyless"),
        ("sha256:" + "0" * 63, "key"),
        ("sha256:" + "0" * 64 + "\n", "key"),
        ("sha256:" + "0" * 64 + "\nbundle=/etc/passwd", "key"),
        ("x\nsha256:" + "0" * 64, "key"),
        ("sha256:" + "0" * 64, "trustme"),
    ],
    ids=["tag", "empty", "latest", "short", "newline", "two lines", "two lines up", "mode"],
)
def test_what_is_no_digest_is_refused(ci, pushed, secrets, digest, mode):
    done, outputs = ci.sign(name_of(pushed), digest, mode=mode, **secrets)
    assert done.returncode == 2, done.stderr
    assert outputs == {}
    assert "signed" not in done.stdout


@pytest.mark.parametrize("text", ["$(touch pwned)", "`touch pwned`", '"; touch pwned; "', "-h"])
def test_inputs_are_never_run(ci, pushed, secrets, text):
    for ref, digest, mode in (
        (text, pushed["digest"], "key"),
        (name_of(pushed), text, "key"),
        (name_of(pushed), pushed["digest"], text),
    ):
        done, _ = ci.sign(ref, digest, mode=mode, **secrets)
        assert done.returncode != 0
    assert not list(ci.directory.glob("pwned*"))


@pytest.fixture
def sigstore():
    with Deployment() as deployment:
        yield deployment


class TokenService:
    """What GitHub gives a job with ``id-token: write``."""

    def __init__(self, deployment):
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                audience = parse_qs(urlsplit(self.path).query)["audience"][0]
                asked.append((self.headers["authorization"], audience))
                body = json.dumps({"value": deployment.token(audience=audience)}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.env = {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"http://127.0.0.1:{self._server.server_port}/token",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-secret",
        }

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.mark.root
def test_without_a_key(ci, command, pushed, sigstore, tmp_path):
    config = tmp_path / "trust.json"
    config.write_bytes(sigstore.trust_config())
    with TokenService(sigstore) as service:
        around = service.env
        if not isinstance(ci, Github):
            around = {"SIGSTORE_ID_TOKEN": sigstore.token()}
        done, outputs = ci.sign(
            name_of(pushed), pushed["digest"], mode="keyless", trust_config=config, **around
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert outputs["digest"] == pushed["digest"]
    if isinstance(ci, Github):
        assert set(service.asked) == {("bearer request-secret", "sigstore")}
    found = command.json(
        *("verify", pushed["reference"], "--identity", IDENTITY, "--issuer", sigstore.url),
        *("--trust-config", config, "--require-attestation", "provenance"),
    )
    assert found["ok"]


@pytest.mark.root
def test_without_any_identity(ci, pushed, sigstore, tmp_path):
    config = tmp_path / "trust.json"
    config.write_bytes(sigstore.trust_config())
    done, outputs = ci.sign(name_of(pushed), pushed["digest"], mode="keyless", trust_config=config)
    assert done.returncode == 4, done.stdout + done.stderr
    assert outputs == {}


def scripts():
    """Yield every script of the examples with what its system would paste into it."""
    for step in (*GITHUB["runs"]["steps"], *WORKFLOW["jobs"]["release"]["steps"]):
        if "run" in step:
            yield step["run"], "${{"
    job = GITLAB[".modelpack-sign"]
    for line in (*job["before_script"], *job["script"]):
        yield line, "$[["
    for step in TEKTON["spec"]["steps"]:
        yield step["script"], "$("


def test_nothing_is_pasted_into_a_script():
    for script, mark in scripts():
        found = [line for line in script.splitlines() if mark in line]
        # A shell's own substitution looks like Tekton's.
        assert [line for line in found if mark != "$(" or "$(params" in line or ")." in line] == []


def test_the_workflow_asks_for_the_least():
    assert WORKFLOW["permissions"] == {}
    assert WORKFLOW["jobs"]["release"]["permissions"] == {
        "contents": "read",
        "packages": "write",
        "id-token": "write",
    }
    assert set(GITHUB["outputs"]) == {"digest", "bundle"}
    assert {"ref", "digest", "mode"} <= set(GITHUB["inputs"])
