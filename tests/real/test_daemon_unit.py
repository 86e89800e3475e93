"""examples/systemd/modelpack-daemon.service under a real systemd, beside a real containerd.

systemd does to the process all that the unit says: what works here works with those restrictions.
"""

import json
import re
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.command import Command
from tests.support.importing import assert_mounts, build_shards, clean_node, reference_for
from tests.support.servers import wait_until
from tests.support.systemd import Systemd

pytestmark = [pytest.mark.real("systemd-analyze", "systemctl"), pytest.mark.root]

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "examples/systemd/modelpack-daemon.service"
CONFIG = ROOT / "examples/systemd/modelpack-daemon.yaml"
# What docs/node.md says of the unit, in tenths.
EXPOSURE = 17
READY_SECONDS = 60


@pytest.fixture
def node(containerd_node):
    with clean_node(containerd_node, "unit") as node:
        yield node


@pytest.fixture
def systemd(tmp_path, node):
    with Systemd(tmp_path) as systemd:
        systemd.add_modelpack(node)
        systemd.write("/etc/systemd/system/modelpack-daemon.service", UNIT.read_text())
        yield systemd


def test_the_unit_is_sound_and_as_little_exposed_as_the_page_says(tmp_path):
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/modelpack", "/bin/true"))
    verified = programs.run("systemd-analyze", "verify", unit)
    assert verified.stdout + verified.stderr == ""
    programs.run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", unit)
    assert f"**{EXPOSURE / 10} of 10**" in (ROOT / "docs/node.md").read_text()


def test_a_model_is_brought_under_all_restrictions(tmp_path, systemd, node, docker_registry):
    model = build_shards(tmp_path / "model", shards=1, megabytes=4)
    reference = reference_for(docker_registry, "unit", "restricted")
    Command(tmp_path / "home").json("push", model, reference)
    text = CONFIG.read_text().replace("registry.example/team/model:v1", reference)
    text = text.replace("/run/containerd/containerd.sock", str(node.socket))
    systemd.write("/etc/modelpack/daemon.yaml", text.replace("127.0.0.1:9464", "127.0.0.1:0"))
    systemd.sh("systemctl daemon-reload; systemctl start modelpack-daemon")
    try:
        wait_until(lambda: is_ready(systemd), seconds=READY_SECONDS)
    except TimeoutError:
        pytest.fail(
            systemd.sh("modelpack daemon status || systemctl status modelpack-daemon -l; true")
        )
    assert_mounts(node, reference, model)

    shown = systemd.sh("systemctl show modelpack-daemon -p MainPID,StatusText,NRestarts")
    assert "StatusText=1 of 1 models are ready" in shown
    assert "NRestarts=0" in shown
    status = systemd.sh(f"cat /proc/{re.search('MainPID=([0-9]+)', shown)[1]}/status")
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)

    systemd.sh("systemctl stop modelpack-daemon")
    shown = systemd.sh("systemctl show modelpack-daemon -p Result,ActiveState")
    assert shown.split() == ["Result=success", "ActiveState=inactive"]


def is_ready(systemd):
    said = systemd.sh("modelpack daemon status --json", check=False)
    return bool(said) and json.loads(said)["models"][0]["stage"] == "Ready"
