"""Directories behind mounts, and the node's paths below another root."""

from pathlib import Path

import pytest

from modelpack.errors import IntegrityError, UsageError
from modelpack.runtime.client import Mount
from modelpack.runtime.mounts import Host

ROOT = Host(Path("/"))
BIND = Mount(type="bind", source="/s/1/fs", options=("rw", "rbind"))
OVERLAY = Mount(
    type="overlay",
    source="overlay",
    options=("index=off", "workdir=/s/3/work", "upperdir=/s/3/fs", "lowerdir=/s/2/fs:/s/1/fs"),
)
VIEW = Mount(type="overlay", source="overlay", options=("lowerdir=/s/2/fs:/s/1/fs",))
FUSE = Mount(type="fuse3.fuse-overlayfs", source="overlay", options=OVERLAY.options)


@pytest.mark.parametrize(
    ("mount", "expected"), [(BIND, "/s/1/fs"), (OVERLAY, "/s/3/fs"), (FUSE, "/s/3/fs")]
)
def test_the_writable_directory(mount, expected):
    assert ROOT.writable_directory([mount]) == Path(expected)


@pytest.mark.parametrize(
    ("mount", "layers", "expected"),
    [
        pytest.param(BIND, 1, ["/s/1/fs"], id="one-layer"),
        pytest.param(VIEW, 2, ["/s/1/fs", "/s/2/fs"], id="lowest-first"),
        pytest.param(BIND, 3, ["/s/1/fs"] * 3, id="all-layers-in-one-directory"),
    ],
)
def test_the_directories_of_a_view(mount, layers, expected):
    assert [str(path) for path in ROOT.layer_directories([mount], layers)] == expected


@pytest.mark.parametrize(
    "mounts",
    [
        pytest.param([], id="none"),
        pytest.param([Mount(type="ext4", source="/dev/mapper/x")], id="block-device"),
        pytest.param([Mount(type="erofs", source="/x"), OVERLAY], id="stacked"),
        pytest.param([VIEW], id="read-only"),
    ],
)
def test_what_files_cannot_be_moved_into_is_refused(mounts):
    with pytest.raises(UsageError):
        ROOT.writable_directory(mounts)


def test_a_view_with_another_number_of_layers_is_refused():
    with pytest.raises(IntegrityError, match="mounts 2 directories for an image of 3 layers"):
        ROOT.layer_directories([VIEW], 3)


@pytest.mark.parametrize(
    ("links", "path", "expected"),
    [
        pytest.param({}, "/var/lib/x", "var/lib/x", id="plain"),
        pytest.param({"var/lib": "/data/lib"}, "/var/lib/x", "data/lib/x", id="absolute-link"),
        pytest.param({"var/lib": "../data"}, "/var/lib/x", "data/x", id="relative-link"),
        pytest.param({"var/lib": "/a", "a": "/b"}, "/var/lib/x", "b/x", id="link-to-link"),
        pytest.param({"var/lib": "../../../../etc"}, "/var/lib/x", "etc/x", id="above-the-root"),
        pytest.param({}, "/var/../../etc/x", "etc/x", id="dots"),
    ],
)
def test_paths_are_followed_below_the_root(links, path, expected, tmp_path):
    for name, target in links.items():
        link = tmp_path / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    assert Host(tmp_path).path(path) == tmp_path / expected


def test_links_in_circles_are_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UsageError, match="circles"):
        Host(tmp_path).path("/a/x")


def test_a_relative_path_is_refused():
    with pytest.raises(UsageError, match="not absolute"):
        ROOT.path("snapshots/1/fs")
