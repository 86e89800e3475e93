"""Which store a bad configuration names, and when a policy has changed."""

import pytest

from modelpack.errors import PolicyError, UsageError
from modelpack.prefetch.configfile import read_config
from modelpack.prefetch.gates import Gates
from modelpack.prefetch.reloading import find_store
from modelpack.prefetch.sources import DiskSource
from modelpack.signing.keys import PrivateKey

GOOD = """
store: /var/lib/modelpack
budget: 20Gi
runtime: {kind: directory, path: /models}
models: []
"""
ENVIRON = {"HOME": "/nonexistent"}


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD + "budgt: 1\n",
        GOOD + "models: [\n",
        GOOD.replace("/var/lib/modelpack", '"/var/lib/modelpack"  # ours'),
        GOOD.replace("/var/lib/modelpack", "'/var/lib/modelpack'") + "\t",
        "{" + ", ".join(GOOD.split("\n")[1:-1]) + "}",
    ],
    ids=["good", "unknown", "broken", "quoted", "single", "flow"],
)
def test_the_store_is_found_even_in_a_bad_file(tmp_path, text):
    path = tmp_path / "daemon.yaml"
    path.write_text(text)
    assert str(find_store(path, ENVIRON)) == "/var/lib/modelpack"


@pytest.mark.parametrize("text", ["", "budget: 3", " store: /x", "store: relative", "{"])
def test_a_bad_file_without_a_store_is_an_error(tmp_path, text):
    path = tmp_path / "daemon.yaml"
    path.write_text(text)
    with pytest.raises(UsageError):
        find_store(path, ENVIRON)


@pytest.fixture
def config(tmp_path):
    (tmp_path / "daemon.yaml").write_text(GOOD + "policy: trust/policy.yaml\n")
    (tmp_path / "trust").mkdir()
    write_policy(tmp_path, "rules: [{match: '**', unsigned: true}]\n")
    return read_config(tmp_path / "daemon.yaml", DiskSource(), ENVIRON)


def write_policy(tmp_path, text):
    (tmp_path / "trust" / "policy.yaml").write_text(text)


def test_a_policy_is_loaded_again_when_it_changes(tmp_path, config):
    gates = Gates(ENVIRON)
    assert gates.use(config) is None
    assert gates.open() is not None
    assert not gates.refresh()
    (tmp_path / "trust" / "notes").write_text("beside it")
    assert not gates.refresh()
    write_policy(tmp_path, "rules: [{match: '**', deny: 'not today'}]\n")
    assert gates.refresh()
    assert not gates.refresh()


def test_a_key_that_is_replaced_is_noticed(tmp_path, config):
    key = tmp_path / "trust" / "team.pub"
    key.write_text(PrivateKey.generate().public_key.pem.decode())
    write_policy(tmp_path, "rules: [{match: '**', signers: [{key: team.pub}]}]\n")
    gates = Gates(ENVIRON)
    assert gates.use(config) is None
    assert not gates.refresh()
    key.write_text(PrivateKey.generate().public_key.pem.decode())
    assert gates.refresh()


def test_a_policy_that_breaks_lets_nothing_through_until_it_is_mended(tmp_path, config):
    gates = Gates(ENVIRON)
    gates.use(config)
    write_policy(tmp_path, "rules: [{match: '**', unsignd: true}]\n")
    assert gates.refresh()
    assert not gates.refresh()
    assert "unsignd is not known" in gates.trouble
    with pytest.raises(PolicyError, match=r"nothing is let through: .*unsignd is not known"):
        gates.open()
    write_policy(tmp_path, "rules: [{match: '**', unsigned: true}]\n")
    assert gates.refresh()
    assert gates.trouble is None
    gates.open()


def test_without_any_policy_there_is_no_gate(tmp_path):
    (tmp_path / "daemon.yaml").write_text(GOOD)
    config = read_config(tmp_path / "daemon.yaml", DiskSource(), ENVIRON)
    gates = Gates(ENVIRON)
    assert gates.use(config) is None
    assert gates.open() is None


def test_the_machines_policy_holds_where_none_is_named(tmp_path):
    (tmp_path / "daemon.yaml").write_text(GOOD)
    (tmp_path / "policy.yaml").write_text("rules: [{match: '**', unsigned: true}]\n")
    config = read_config(tmp_path / "daemon.yaml", DiskSource(), ENVIRON)
    gates = Gates({**ENVIRON, "MODELPACK_POLICY": str(tmp_path / "policy.yaml")})
    assert gates.use(config) is None
    assert gates.open() is not None
    (tmp_path / "policy.yaml").unlink()
    assert gates.refresh()
    with pytest.raises(PolicyError, match="does not exist"):
        gates.open()
