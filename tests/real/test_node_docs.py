"""The walk in docs/node.md, followed as a new user would, to its end: the uninstalled daemon.

All but the Pod itself, for which there is no kubelet: its volume is mounted through CRI.
"""

from pathlib import Path

import pytest

from tests.support import programs
from tests.support.importing import clean_node
from tests.support.nodestate import (
    assert_nothing_unfinished,
    content_digests,
    layer_trees,
    lease_ids,
    snapshot_keys,
)
from tests.support.pages import blocks
from tests.support.servers import free_port, wait_until
from tests.support.systemd import Systemd

pytestmark = [
    pytest.mark.real("systemctl", "docker-registry", "containerd", "runc", "busybox", "skopeo"),
    pytest.mark.root,
]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/node.md"
# Much of it waits for the daemon, whose loop comes round every second.
WALK_SECONDS = 240


@pytest.fixture
def node(containerd_node):
    with clean_node(containerd_node, "node-docs") as node:
        yield node


@pytest.fixture
def systemd(tmp_path, node):
    """A machine with containerd's socket, modelpack and ctr where the page has them."""
    with Systemd(tmp_path) as systemd:
        systemd.add_modelpack(node)
        ctr = programs.command("ctr", f"--address={node.socket}")
        systemd.add_program("ctr", "env", f"PATH={programs.TREE_PATH}", *ctr)
        systemd.sh(f"mkdir /run/containerd; ln -s {node.socket} /run/containerd/containerd.sock")
        yield systemd


def script(work, section, replaced):
    """Return the commands of one section, to be run in a directory."""
    text = "\n".join(blocks(PAGE, section))
    for old, new in replaced.items():
        text = text.replace(old, new)
    return f"cd {work}\n{text}\necho the end\n"


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
    files = "find /etc /etc/systemd/system /var/lib -xdev -type f -exec sha256sum {} +"
    files_before = systemd.sh(files)
    assert "/etc/passwd" in files_before

    walk = script(work, "From an empty node to a Pod with its weights", replaced)
    said = systemd.sh(walk, timeout=WALK_SECONDS)
    assert said.endswith("the end\n")
    assert "Refused" in said

    # what the rollback went back to is what the Pod mounts
    reference = f"{docker_registry.host}/node-docs/model:v1"

    def mounted():
        with node.container(image_volumes={"/models": reference}) as container:
            return container.exec(["cat", "/models/config.json"]).stdout

    wait_until(lambda: mounted() == '{"model_type":"llama"}', seconds=60, poll=1)

    said = systemd.sh(script(work, "Uninstalling", replaced), timeout=WALK_SECONDS)
    assert said.endswith("the end\n")
    assert_nothing_unfinished(node)
    assert state_of(node) == before
    assert systemd.sh(files) == files_before
