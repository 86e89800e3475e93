from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.errors import ModelpackError, UsageError
from modelpack.trust.doctor import asks, examine, load_config, parse_version

IMAGES = "[plugins.'io.containerd.cri.v1.images']\n"
CRI = '[plugins."io.containerd.grpc.v1.cri"]\n'
VERIFIER = "[plugins.'io.containerd.image-verifier.v1.bindir']\n"


@pytest.fixture
def node(tmp_path):
    """A node with a verifier installed where containerd looks by default."""
    directory = tmp_path / "opt/containerd/image-verifier/bin"
    directory.mkdir(parents=True)
    install(directory / "modelpack")
    return tmp_path


def install(path, text="exec modelpack containerd-verifier", mode=0o755):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)


def found(node, text="", version=None):
    path = node / "config.toml"
    path.write_text(text)
    return examine(load_config(path), version=version, root=node)


def levels(findings):
    return {finding.level for finding in findings}


def test_a_node_as_it_should_be(node):
    assert levels(found(node)) == {"good"}
    assert levels(found(node, "version = 3\n", version=(2, 1))) == {"good"}
    assert asks(examine(load_config(node / "absent.toml"), root=node))


@pytest.mark.parametrize(
    "text",
    [
        IMAGES + "use_local_image_pull = true",
        IMAGES + "disable_snapshot_annotations = false",
        IMAGES + "discard_unpacked_layers = true",
        IMAGES + "image_pull_with_sync_fs = true",
        IMAGES + "max_concurrent_downloads = 10",
        IMAGES + "max_concurrent_downloads = 0",
        "[plugins.'io.containerd.cri.v1.images'.registry.mirrors.'docker.io']\nendpoint=['x']",
        "[plugins.'io.containerd.cri.v1.images'.registry.configs.'a'.tls]\nca_file='x'",
        "[plugins.'io.containerd.cri.v1.images'.registry.auths.'a']\nusername='x'",
        "version = 2\n" + CRI + "max_concurrent_downloads = 5",
        "[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndiscard_unpacked_layers = true",
        "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry.mirrors.a]\nendpoint=['x']",
        "[plugins.cri]\nimage_pull_with_sync_fs = true",
        VERIFIER + "bin_dir = '/nowhere'",
        VERIFIER + "max_verifiers = 0",
    ],
)
def test_what_lets_images_in_unasked(node, text):
    findings = found(node, text)
    assert "open" in levels(findings)
    assert not asks(findings)
    assert all(finding.advice for finding in findings if finding.level == "open")


@pytest.mark.parametrize(
    "text",
    [
        IMAGES + "use_local_image_pull = false",
        IMAGES + "disable_snapshot_annotations = true",
        IMAGES + "max_concurrent_downloads = 3",
        IMAGES + "stats_collect_period = 20",
        "[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d'",
        "[plugins.'io.containerd.cri.v1.images'.registry.mirrors]",
        VERIFIER + "max_verifiers = -1\nper_verifier_timeout = '1m30s'",
        VERIFIER + "bin_dir = '/opt/containerd/image-verifier/bin'",
        "plugins = 1",
        "disabled_plugins = ['io.containerd.internal.v1.tracing']",
    ],
)
def test_what_does_no_harm(node, text):
    assert asks(found(node, text))


@pytest.mark.parametrize("name", ["image-verifier.v1.bindir", "transfer.v1.local"])
def test_plugins_that_are_switched_off(node, name):
    assert "closed" in levels(found(node, f"disabled_plugins = ['io.containerd.{name}']"))


def test_versions(node):
    assert "open" in levels(found(node, version=(2, 0)))
    assert "open" in levels(found(node, version=(1, 7)))
    assert asks(found(node, version=(3, 0)))
    text = "containerd github.com/containerd/containerd/v2 2.1.9 abc"
    assert parse_version(text) == (2, 1)
    assert parse_version("v2.10.0-rc.1") == (2, 10)
    assert parse_version("") is None


def test_the_directory(node):
    directory = node / "opt/containerd/image-verifier/bin"
    for number in range(10):
        install(directory / f"a{number}", "true")
    assert not asks(found(node)), "sorts after ten others"
    assert asks(found(node, VERIFIER + "max_verifiers = 11"))
    (directory / "modelpack").rename(directory / "00-modelpack")
    assert asks(found(node))
    install(directory / "a3", "true", mode=0o644)
    assert "closed" in levels(found(node))
    (directory / "a3").unlink()
    (directory / "a3").mkdir()
    assert "closed" in levels(found(node))
    (directory / "a3").rmdir()
    install(directory / "a3", "true", mode=0o777)
    assert "note" in levels(found(node))


def test_a_directory_of_others_only_and_an_empty_one(node):
    directory = node / "opt/containerd/image-verifier/bin"
    install(directory / "modelpack", "exec notation verify")
    assert not asks(found(node))
    (directory / "modelpack").unlink()
    assert not asks(found(node))


def test_a_short_time_is_noted(node):
    assert "note" in levels(found(node, VERIFIER + "per_verifier_timeout = '500ms'"))
    assert levels(found(node, VERIFIER + "per_verifier_timeout = 'soon'")) == {"good"}


def test_imports_are_read_and_win(node):
    (node / "conf.d").mkdir()
    (node / "conf.d/a.toml").write_text(IMAGES + "use_local_image_pull = true\n")
    text = (
        "imports = ['conf.d/*.toml', 'absent/*.toml']\n" + IMAGES + "use_local_image_pull = false"
    )
    assert not asks(found(node, text))
    (node / "conf.d/a.toml").write_text(f"imports = ['{node}/config.toml']\n")
    assert asks(found(node, text)), "importing each other ends"


@pytest.mark.parametrize("text", ["version = ", "\x00", "[plugins", "a = 1\na = 2"])
def test_what_is_no_configuration(node, text):
    with pytest.raises(UsageError, match="TOML"):
        found(node, text)


def test_a_configuration_that_is_too_large(node):
    with pytest.raises(UsageError, match="larger"):
        found(node, "#" * (1024 * 1024 + 1))


VALUES = st.one_of(
    st.booleans(), st.integers(-5, 20), st.text("abc01.s", max_size=6), st.lists(st.integers(0, 2))
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["use_local_image_pull", "registry", "max_concurrent_downloads", "bin_dir", "imports",
             "max_verifiers", "per_verifier_timeout", "discard_unpacked_layers"]
        ),
        VALUES,
    ),
    st.sampled_from(["io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri",
                     "io.containerd.image-verifier.v1.bindir"]),
)  # fmt: skip
def test_values_of_any_type_are_findings_or_errors_of_our_own(tmp_path_factory, values, plugin):
    import json

    directory = tmp_path_factory.getbasetemp() / "doctor"
    directory.mkdir(exist_ok=True)
    path = Path(directory / "config.toml")
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    path.write_text("\n".join([f"[plugins.'{plugin}']", *lines]))
    try:
        assert examine(load_config(path), root=directory)
    except ModelpackError:
        return
