"""Every command of docs/trust.md and docs/signing-in-ci.md, followed as a new user would."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from modelpack.signing.keys import PrivateKey
from modelpack.signing.policyfile import parse_policy
from tests.support import programs
from tests.support.command import PROGRAM
from tests.support.trust import TrustCommand
from tests.unit.signing.sigstore_services import Deployment

pytestmark = pytest.mark.real("cosign", "docker-registry", "model_signing")

ROOT = Path(__file__).resolve().parents[2]
TRUST, CI = ROOT / "docs/trust.md", ROOT / "docs/signing-in-ci.md"
EXPECTED = re.compile(r"   # (?:exits with (?P<status>\d+)|(?P<fails>fails))$")


def blocks(page):
    return re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def policies(page):
    found = re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [text for text in found if text.startswith("rules:")]


def script_of(block):
    """Return a script that stops at the first line that does not end as the page says."""
    lines, text = [], False
    for line in block.splitlines():
        match = EXPECTED.search(line)
        if text:
            text = line != "EOF"
        elif match:
            status = match["status"]
            wanted = f'[ "$status" -eq {status} ]' if status else '[ "$status" -ne 0 ]'
            command = line[: match.start()]
            lines += [f"status=0; {command} || status=$?", f"{wanted} || fail {shlex.quote(line)}"]
            continue
        text = text or line.endswith("<<'EOF'")
        lines.append(line)
    return "\n".join(lines)


def follow(page, directory, replacements, files, env):
    """Run every command of a page, in its order; names of elsewhere are replaced."""
    shims = directory / "bin"
    shims.mkdir()
    for name, argv in (
        ("modelpack", [str(PROGRAM)]),
        ("python", [sys.executable]),
        ("model_signing", [str(programs.find_program("model_signing"))]),
        # In the tree's view the name must find the program and not this shim.
        ("cosign", ["env", f"PATH={programs.TREE_PATH}", *programs.command("cosign")]),
    ):
        shim = shims / name
        shim.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
        shim.chmod(0o755)
    work = directory / "work"
    work.mkdir()
    for name, text in files.items():
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_text(text)
    script = "\n".join(script_of(block) for block in blocks(page))
    for old, new in replacements.items():
        assert old in script, f"{page.name} does not say {old}"
        script = script.replace(old, new)
    prelude = 'set -eu\nfail() { echo "not as the page says: $1" >&2; exit 99; }\n'
    own = TrustCommand(directory).env
    own.pop("MODELPACK_KEY_PASSWORD")
    done = subprocess.run(
        ["bash", "-c", prelude + script + "\necho the end"],
        cwd=work,
        env=own | env | {"PATH": f"{shims}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("the end\n")
    return work


@pytest.fixture
def sigstore():
    with Deployment(rekor=2) as deployment:
        yield deployment


ISSUER = "https://token.actions.githubusercontent.com"
WORKFLOW = "o/r/.github/workflows/release.yml@refs/heads/main"
IDENTITY = f"https://github.com/{WORKFLOW}"


def test_the_page_is_followed_to_its_end(tmp_path, docker_registry, sigstore):
    assert len(blocks(TRUST)) >= 10
    verifiers = tmp_path / "containerd"
    follow(
        TRUST,
        tmp_path,
        {
            "localhost:5000": docker_registry.host,
            "/opt/containerd": str(verifiers),
            ISSUER: sigstore.url,
        },
        {
            "token": sigstore.token(identity=IDENTITY),
            "trust.json": sigstore.trust_config().decode(),
        },
        {},
    )
    [script] = (path for path in verifiers.rglob("*") if path.is_file())
    assert os.access(script, os.X_OK)
    assert "containerd-verifier" in script.read_text()


def test_from_ci_to_the_verified_pull(tmp_path, docker_registry, sigstore):
    work = follow(
        CI,
        tmp_path,
        {
            ISSUER: sigstore.url,
            "modelpack sign ": "modelpack sign --trust-config trust.json ",
            "modelpack verify ": "modelpack verify --trust-config trust.json ",
            "rules:\n": "trust_config: trust.json\nrules:\n",
        },
        {"model/config.json": "{}", "trust.json": sigstore.trust_config().decode()},
        {
            "REF": f"{docker_registry.host}/o/r/model",
            "GITHUB_ACTIONS": "true",
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REPOSITORY": "o/r",
            "GITHUB_REF_NAME": "v1",
            "GITHUB_WORKFLOW_REF": WORKFLOW,
            # What the job's permission gives; tests/cli/test_ci_examples.py asks in GitHub's own way.
            "SIGSTORE_ID_TOKEN": sigstore.token(identity=IDENTITY),
        },
    )
    assert (work / "served/config.json").read_text() == "{}"
    assert "tlogEntries" in (work / "model.sigstore.json").read_text()


def test_the_page_says_what_the_workflow_does():
    workflow = yaml.safe_load((ROOT / "examples/ci/github/release.yml").read_text())
    steps = {step.get("name"): step for step in workflow["jobs"]["release"]["steps"]}
    verify = steps["Verify as everybody else will"]["run"].replace("$DIGEST", "$digest")
    said = [line.strip() for block in blocks(CI) for line in block.splitlines()]
    for line in (*verify.splitlines()[1:], *steps["Push"]["run"].splitlines()[1:3]):
        assert line.strip() in said


def test_the_policies_of_the_page_are_policies():
    found = policies(TRUST)
    assert len(found) >= 2
    key = PrivateKey.generate().public_key.pem
    for text in found:
        assert parse_policy(text.encode(), lambda _: key).rules
