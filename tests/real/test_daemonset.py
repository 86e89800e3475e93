"""The DaemonSet's container without a kubelet: its mounts and rights, beside a real containerd.

What a kubelet and a runtime do for a Pod is done here by hand: the machine's root file system,
read-only, is the image; volumes are mounted where the manifest says; all capabilities are dropped.
The runtime's seccomp profile is not there; that of the systemd unit, which is narrower, is tried
in ``test_daemon_unit.py``.
"""

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from tests.support.command import PROGRAM, Command
from tests.support.importing import assert_mounts, build_shards, clean_node, reference_for
from tests.support.manifests import container_of, pod_of, rendered, write_volumes
from tests.support.servers import Server, wait_until

pytestmark = [pytest.mark.real("kubectl"), pytest.mark.root]

READY_SECONDS = 60
# The writable layer of the overlay is only there to make mount points in.
_CONTAINER = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$0"
mkdir "$0/upper" "$0/work" "$0/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" "$0/root"
cd "$0/root"
mount --rbind /proc proc
mount --rbind /dev dev
{mounts}
mount -o remount,ro "$0/root"
exec chroot . setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all --no-new-privs {command}
"""


@pytest.fixture
def node(containerd_node):
    with clean_node(containerd_node, "daemonset") as node:
        yield node


def container(objects, node, directory, port_free_config):
    """Return the container as a process that is not started yet."""
    volumes = write_volumes(objects, directory / "volumes")
    port_free_config(volumes / "etc/modelpack/daemon.d")
    places = {
        "/var/lib/containerd": node.root,
        "/run/containerd": node.directory,
        "/var/lib/modelpack": directory / "store",
    }
    (directory / "store").mkdir()
    # containerd names its files by the paths that they have on this machine.
    link = f".{'/host'}{node.root}"
    mounts = [f"mkdir -p {Path(link).parent}", f"ln -s /var/lib/containerd {link}"]
    known = {volume["name"]: volume for volume in pod_of(objects)["volumes"]}
    for mount in container_of(objects)["volumeMounts"]:
        volume, target = known[mount["name"]], f".{mount['mountPath']}"
        mounts.append(f"mkdir -p {target}")
        if "emptyDir" in volume:
            mounts.append(f"mount -t tmpfs tmpfs {target}")
            continue
        of_node = volume.get("hostPath", {}).get("path")
        source = places[of_node] if of_node else f"{volumes}{mount['mountPath']}"
        mounts.append(f"mount --rbind {source} {target}")
        if mount.get("readOnly"):
            mounts.append(f"mount -o remount,bind,ro {target}")
    # What the image would hold lies anywhere here, perhaps below a directory that is hidden by now.
    for place in (Path(sys.base_prefix), PROGRAM.parents[2]):
        mounts += [f"mkdir -p .{place}", f"mount --rbind {place} .{place}"]
    env = {one["name"]: one.get("value", "node-1") for one in container_of(objects)["env"]}
    script = _CONTAINER.format(
        mounts="\n".join(mounts), command=shlex.join([str(PROGRAM), *container_of(objects)["args"]])
    )
    top = directory / "container"
    top.mkdir()
    return Server(
        "daemon",
        ["unshare", "--mount", "/bin/sh", "-c", script, str(top)],
        log=directory / "daemon.log",
        env={"PATH": os.environ["PATH"], **env},
    )


def test_it_brings_a_model_to_its_node(tmp_path, node, docker_registry):
    model = build_shards(tmp_path / "model", shards=1, megabytes=4)
    reference = reference_for(docker_registry, "daemonset", "chat")
    command = Command(tmp_path / "home")
    command.json("push", model, reference)

    def adapt(config):
        for file, old, new in (
            ("models.yaml", "registry.example/team/model:v1", reference),
            ("daemon.yaml", "0.0.0.0:9464", "127.0.0.1:0"),
            ("daemon.yaml", "200Gi\nminFree: 20Gi", "1Gi"),
        ):
            text = (config / file).read_text()
            assert old in text
            (config / file).write_text(text.replace(old, new))

    socket = tmp_path / "store/control.sock"

    def is_ready():
        done = command.run("daemon", "status", "--socket", socket, "--json")
        return bool(done.stdout) and json.loads(done.stdout)["models"][0]["stage"] == "Ready"

    daemon = container(rendered("base"), node, tmp_path, adapt)
    daemon.start(ready=socket.exists)
    try:
        wait_until(is_ready, seconds=READY_SECONDS, poll=0.2)
        assert_mounts(node, reference, model)
        status = command.json("daemon", "status", "--socket", socket)
        assert status["node"] == "node-1"
    finally:
        daemon.stop()
    assert not socket.exists()  # it ended by itself, in order
