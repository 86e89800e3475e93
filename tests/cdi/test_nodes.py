"""Device nodes of a host, and paths below another root."""

import os
from pathlib import Path

import pytest

from cdi.nodes import HostNodes, NodeFacts, under


def test_a_device_every_linux_has():
    facts = HostNodes().lookup("/dev/null")
    assert (facts.type, facts.major, facts.minor) == ("c", 1, 3)
    assert facts.file_mode & 0o666 == 0o666


def test_what_is_no_device_node_is_none(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "file").write_text("")
    (tmp_path / "dev" / "link").symlink_to("/dev/null")
    nodes = HostNodes(root=tmp_path)
    for path in ("/dev/file", "/dev/link", "/dev", "/dev/none", "/dev/\0"):
        assert nodes.lookup(path) is None


def test_a_fifo_below_a_root(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o640)
    (tmp_path / "pipe").chmod(0o640)
    facts = HostNodes(root=tmp_path).lookup("/pipe")
    assert facts == NodeFacts(
        type="p", major=0, minor=0, file_mode=0o640, uid=os.getuid(), gid=os.getgid()
    )


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/plain/file", "plain/file"),
        ("plain//./file", "plain/file"),
        ("/absolute/file", "plain/file"),
        ("/relative/file", "plain/file"),
        ("/chain/file", "plain/file"),
        ("/../../plain/file", "plain/file"),
        ("/up/plain/file", "plain/file"),
        ("/plain/end", "plain/end"),
        ("/missing/a/b", "missing/a/b"),
        ("/", ""),
    ],
)
def test_links_do_not_lead_out_of_a_root(tmp_path, path, found):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "end").symlink_to("/etc")
    (tmp_path / "absolute").symlink_to("/plain")
    (tmp_path / "relative").symlink_to("plain")
    (tmp_path / "chain").symlink_to("absolute")
    (tmp_path / "up").symlink_to("../../..")
    assert under(tmp_path, path) == tmp_path / found


def test_a_circle_of_links_ends(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("/a")
    assert HostNodes(root=tmp_path).lookup("/a/x") is None


def test_the_real_root_is_the_identity():
    assert under(Path("/"), "/dev/null") == Path("/dev/null")
