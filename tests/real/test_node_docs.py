"""The walk in docs/node.md, followed as a new user would, to its end: the uninstalled daemon.

All but the Pod itself, for which there is no kubelet: its volume is mounted through CRI.
"""

import shlex
import sys
from pathlib import Path

import pytest

from tests.real.test_trust_docs import script_of
from tests.support import programs
from tests.support.command import PROGRAM
from tests.support.importing import clean_node
from tests.support.nodestate import (
    assert_nothing_unfinished,
    content_digests,
    layer_trees,
    lease_ids,
    snapshot_keys,
)
from tests.support.pages import blocks
from tests.support.servers import free_port
from tests.support.systemd import Systemd

pytestmark = [
    pytest.mark.real("systemctl", "docker-registry", "containerd", "runc", "busybox", "skopeo"),
    pytest.mark.root,
]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/node.md"
# Much of it waits for the daemon, whose loop comes round every second.
WALK_SECONDS = 240

# What a node of its own has where the tests have it elsewhere: containerd, Python, this package.
DROP_IN = """
[Service]
ReadWritePaths={root}
BindPaths={directory}
BindReadOnlyPaths={prefix} {checkout}
ProtectHome=tmpfs
"""
_PRELUDE = """
fail() { echo "not as the page says: $1" >&2; exit 99; }
cd "$1"
"""


@pytest.fixture
def node(containerd_node):
    with clean_node(containerd_node, "node-docs") as node:
        yield node


@pytest.fixture
def systemd(tmp_path, node):
    """A machine with containerd's socket, modelpack and ctr where the page has them."""
    with Systemd(tmp_path) as systemd:
        for name, argv in (
            ("modelpack", [str(PROGRAM)]),
            (
                "ctr",
                [
                    "env",
                    f"PATH={programs.TREE_PATH}",
                    *programs.command("ctr", f"--address={node.socket}"),
                ],
            ),
        ):
            systemd.write(
                f"/usr/local/bin/{name}", f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n', 0o755
            )
        systemd.sh(f"mkdir /run/containerd; ln -s {node.socket} /run/containerd/containerd.sock")
        places = DROP_IN.format(
            root=node.root,
            directory=node.directory,
            prefix=sys.base_prefix,
            checkout=PROGRAM.parents[1],
        )
        systemd.write("/etc/systemd/system/modelpack-daemon.service.d/test.conf", places)
        yield systemd


def script(section, replaced):
    """Return the commands of one section, which stop where something is not as the page says."""
    text = "\n".join(script_of(block) for block in blocks(PAGE, section))
    for old, new in replaced.items():
        text = text.replace(old, new)
    return _PRELUDE + text + "\necho the end\n"


def state_of(node):
    return (
        snapshot_keys(node),
        lease_ids(node),
        content_digests(node),
        layer_trees(node),
        node.ctr("images", "ls"),
    )


def test_the_page_is_followed_to_its_end(tmp_path, systemd, node, docker_registry):
    work = tmp_path / "work"
    work.mkdir()
    (work / "examples").symlink_to(ROOT / "examples")
    replaced = {
        "localhost:5000/team": f"{docker_registry.host}/node-docs",
        "127.0.0.1:9464": f"127.0.0.1:{free_port()}",
    }
    before = state_of(node)
    files = "find /etc /usr/local /opt /var/lib -xdev -type f,l -exec sha256sum {} + 2>&1; true"
    files_before = systemd.sh(files)
    assert "/etc/passwd" in files_before

    walk = script("From an empty node to a Pod with its weights", replaced)
    said = systemd.sh(f"set -- {work}\n{walk}", timeout=WALK_SECONDS)
    assert said.endswith("the end\n")
    assert "Refused" in said

    # what the rollback went back to is what the Pod mounts
    reference = f"{docker_registry.host}/node-docs/model:v1"
    seen = node.run_with_image_volume(reference, "/models", ["cat", "/models/config.json"])
    assert seen.stdout == '{"model_type":"llama"}'

    walk = script("Uninstalling", replaced)
    said = systemd.sh(f"set -- {work}\n{walk}", timeout=WALK_SECONDS)
    assert said.endswith("the end\n")
    assert_nothing_unfinished(node)
    assert state_of(node) == before
    assert systemd.sh(files) == files_before
