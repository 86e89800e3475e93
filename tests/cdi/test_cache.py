"""Spec directories: precedence, conflicts, files that cannot be read, injection by name."""

import os

import pytest

from cdi.cache import Cache, default_directories
from cdi.errors import InjectionError, InvalidSpecError, UnresolvableError
from cdi.files import write_spec
from cdi.nodes import RecordedNodes
from cdi.spec import ContainerEdits, Device, DeviceNode, Spec
from tests.cdi.specdirs import spec_of, tree


def test_default_directories_below_a_root(tmp_path):
    assert [str(path) for path in default_directories()] == ["/etc/cdi", "/var/run/cdi"]
    (tmp_path / "run").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "run").symlink_to("/run")
    assert default_directories(tmp_path) == (tmp_path / "etc" / "cdi", tmp_path / "run" / "cdi")


def test_devices_of_all_directories_sorted(tmp_path):
    cache = Cache.load(tree(tmp_path, {"a/x.yaml": "b.com/gpu=1,0", "b/y.json": "a.com/gpu=9"}))
    assert cache.names() == ("a.com/gpu=9", "b.com/gpu=0", "b.com/gpu=1")
    assert cache.errors == {}
    assert cache.conflicts() == ()


def test_what_is_not_a_spec_file_does_not_count(tmp_path):
    directories = tree(
        tmp_path,
        {
            "a/x.yml": "v.com/gpu=0",
            "a/x.yaml.bak": "v.com/gpu=1",
            "a/x.YAML": "v.com/gpu=2",
            "a/sub/x.yaml": "v.com/gpu=3",
            "a/.x.yaml": "v.com/gpu=4",
            "a/.yaml": "v.com/gpu=5",
        },
    )
    assert Cache.load(directories).names() == ("v.com/gpu=4", "v.com/gpu=5")


def test_a_later_directory_wins(tmp_path):
    cache = Cache.load(tree(tmp_path, {"a/x.yaml": "v.com/gpu=0,1", "b/x.yaml": "v.com/gpu=1"}))
    assert cache.device("v.com/gpu=0").source.priority == 0
    assert cache.device("v.com/gpu=1").source.path == tmp_path / "b" / "x.yaml"
    assert cache.conflicts() == ()


def test_one_priority_conflicts_and_a_higher_one_does_not_help(tmp_path):
    cache = Cache.load(
        tree(
            tmp_path,
            {"a/x.yaml": "v.com/gpu=0,1", "a/y.yaml": "v.com/gpu=0,2", "b/z.yaml": "v.com/gpu=0"},
        )
    )
    assert cache.names() == ("v.com/gpu=1", "v.com/gpu=2")
    assert cache.device("v.com/gpu=0") is None
    (conflict,) = cache.conflicts()
    assert conflict.name == "v.com/gpu=0"
    assert conflict.paths == (tmp_path / "a" / "x.yaml", tmp_path / "a" / "y.yaml")
    with pytest.raises(UnresolvableError) as info:
        cache.edits(["v.com/gpu=0"])
    assert "x.yaml and" in str(info.value)


def test_a_file_that_is_wrong_does_not_hide_the_others(tmp_path):
    directories = tree(tmp_path, {"a/x.yaml": "v.com/gpu=0", "a/bad.json": "{", "a/none.yaml": ""})
    (tmp_path / "a" / "dangling.yaml").symlink_to("nowhere")
    (tmp_path / "a" / "dir.yaml").mkdir()
    os.mkfifo(tmp_path / "a" / "pipe.yaml")
    cache = Cache.load(directories)
    assert cache.names() == ("v.com/gpu=0",)
    assert sorted(path.name for path in cache.errors) == [
        *("bad.json", "dangling.yaml", "none.yaml", "pipe.yaml"),
    ]
    assert isinstance(cache.errors[tmp_path / "a" / "bad.json"], InvalidSpecError)


def test_missing_directories_are_empty_and_a_file_in_their_place_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    cache = Cache.load((tmp_path / "none", tmp_path / "file"))
    assert cache.names() == ()
    assert [path.name for path in cache.errors] == ["file"]


def test_unresolvable_names_are_named_all_in_order(tmp_path):
    cache = Cache.load(tree(tmp_path, {"a/x.yaml": "v.com/gpu=0"}))
    with pytest.raises(UnresolvableError) as info:
        cache.inject({}, ["v.com/gpu=7", "v.com/gpu=0", "nonsense", "v.com/gpu=0 "])
    assert str(info.value) == "unresolvable CDI devices v.com/gpu=7, nonsense, v.com/gpu=0 "
    assert info.value.devices == ("v.com/gpu=7", "nonsense", "v.com/gpu=0 ")
    assert info.value.exit_code == 3


def test_a_spec_gives_its_own_edits_once_before_its_first_device(tmp_path):
    directories = tree(tmp_path, {"a/x.yaml": "v.com/gpu=0,1", "b/y.yaml": "w.com/nic=0"})
    edits = Cache.load(directories).edits(["v.com/gpu=1", "w.com/nic=0", "v.com/gpu=0"])
    assert edits.env == (
        *("SPEC_v.com/gpu=1", "DEVICE_v.com/gpu_1=1"),
        *("SPEC_w.com/nic=1", "DEVICE_w.com/nic_0=1"),
        "DEVICE_v.com/gpu_0=1",
    )


def test_a_device_asked_for_twice_is_injected_as_once(tmp_path):
    cache = Cache.load(tree(tmp_path, {"a/x.yaml": "v.com/gpu=0"}))
    once = cache.inject({}, ["v.com/gpu=0"])
    assert cache.inject({}, ["v.com/gpu=0", "v.com/gpu=0"]) == once
    assert cache.inject(once, ["v.com/gpu=0"]) == once


def test_the_host_is_asked_for_nodes(tmp_path):
    node = DeviceNode(path="/dev/null")
    spec = Spec(
        cdi_version="0.5.0",
        kind="v.com/gpu",
        devices=(Device(name="0", container_edits=ContainerEdits(device_nodes=(node,))),),
    )
    write_spec(spec, tmp_path / "a.yaml")
    cache = Cache.load((tmp_path,))
    (device,) = cache.inject({}, ["v.com/gpu=0"])["linux"]["devices"]
    assert (device["type"], device["major"], device["minor"]) == ("c", 1, 3)
    with pytest.raises(InjectionError):
        cache.inject({}, ["v.com/gpu=0"], nodes=RecordedNodes({}))


def test_a_cache_is_a_snapshot(tmp_path):
    cache = Cache.load((tmp_path,))
    write_spec(spec_of("v.com/gpu=0"), tmp_path / "a.yaml")
    assert cache.names() == ()
    assert Cache.load((tmp_path,)).names() == ("v.com/gpu=0",)
