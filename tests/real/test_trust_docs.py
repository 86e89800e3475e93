"""The walk in docs/trust.md, followed as a new user would, line by line."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.command import PROGRAM
from tests.support.trust import TrustCommand

pytestmark = pytest.mark.real("cosign", "docker-registry")

PAGE = Path(__file__).resolve().parents[2] / "docs/trust.md"
EXPECTED = re.compile(r"   # (?:exits with (?P<status>\d+)|(?P<fails>fails))$")


def blocks():
    walk = PAGE.read_text().partition("\n## From a push")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", walk, re.MULTILINE | re.DOTALL)


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


def test_the_page_is_followed_to_its_end(tmp_path, docker_registry):
    shims = tmp_path / "bin"
    shims.mkdir()
    for name, argv in (
        ("modelpack", [str(PROGRAM)]),
        # In the tree's view the name must find the program and not this shim.
        ("cosign", ["env", f"PATH={programs.TREE_PATH}", *programs.command("cosign")]),
    ):
        shim = shims / name
        shim.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
        shim.chmod(0o755)
    command = TrustCommand(tmp_path)
    env = {name: value for name, value in command.env.items() if name != "MODELPACK_KEY_PASSWORD"}
    found = blocks()
    assert len(found) >= 7
    script = "\n".join(script_of(block) for block in found)
    script = script.replace("localhost:5000", docker_registry.host)
    work = tmp_path / "work"
    work.mkdir()
    prelude = 'set -eu\nfail() { echo "not as the page says: $1" >&2; exit 99; }\n'
    done = subprocess.run(
        ["bash", "-c", prelude + script + "\necho the end"],
        cwd=work,
        env=env | {"PATH": f"{shims}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("the end\n")
