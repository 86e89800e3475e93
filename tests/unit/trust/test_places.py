import os

import pytest

from modelpack.errors import NotFoundError, UsageError
from modelpack.trust.places import policy_path, records_directory


@pytest.fixture
def machine(tmp_path):
    """A home and a system directory, and what names them."""
    environ = {"HOME": str(tmp_path / "home")}
    system = tmp_path / "etc"
    user = tmp_path / "home/.config/modelpack"
    for directory in (system, user):
        directory.mkdir(parents=True)
    return environ, system, user


def write(path):
    path.write_text("rules: []")
    return path


def test_the_order_in_which_policies_are_found(machine, tmp_path):
    environ, system, user = machine
    assert policy_path(None, environ, system) is None
    of_system = write(system / "policy.yaml")
    assert policy_path(None, environ, system) == of_system
    of_user = write(user / "policy.yaml")
    assert policy_path(None, environ, system) == of_user
    elsewhere = tmp_path / "xdg"
    (elsewhere / "modelpack").mkdir(parents=True)
    moved = write(elsewhere / "modelpack/policy.yaml")
    assert policy_path(None, environ | {"XDG_CONFIG_HOME": str(elsewhere)}, system) == moved
    named = write(tmp_path / "named.yaml")
    environ["MODELPACK_POLICY"] = str(named)
    assert policy_path(None, environ, system) == named
    given = write(tmp_path / "given.yaml")
    assert policy_path(given, environ, system) == given


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_variable_names_nothing(machine, value):
    environ, system, user = machine
    found = write(user / "policy.yaml")
    given = {} if value is None else {"MODELPACK_POLICY": value}
    assert policy_path(None, environ | given, system) == found


def test_a_named_policy_must_be_there(machine, tmp_path):
    environ, system, _ = machine
    with pytest.raises(NotFoundError, match=r"gone\.yaml"):
        policy_path(tmp_path / "gone.yaml", environ, system)
    with pytest.raises(NotFoundError, match=r"gone\.yaml"):
        policy_path(None, environ | {"MODELPACK_POLICY": str(tmp_path / "gone.yaml")}, system)


def test_a_policy_that_cannot_be_seen_is_not_taken_for_none(machine):
    environ, system, user = machine
    (user / "policy.yaml").symlink_to(user / "nothing")
    with pytest.raises(UsageError, match="a link to nothing"):
        policy_path(None, environ, system)
    (user / "policy.yaml").unlink()
    user.rmdir()
    user.symlink_to(user)
    with pytest.raises(UsageError, match="cannot be told"):
        policy_path(None, environ, system)


def test_a_directory_that_may_not_be_entered(machine, monkeypatch):
    environ, system, _ = machine

    def stat(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(UsageError, match="Permission denied"):
        policy_path(None, environ, system)


def test_where_records_lie():
    assert str(records_directory({"HOME": "/home/ada"})) == (
        "/home/ada/.local/state/modelpack/accepted"
    )
    assert str(records_directory({"HOME": "/x", "XDG_STATE_HOME": "/state"})) == (
        "/state/modelpack/accepted"
    )
    # Relative ones are to be ignored (XDG Base Directory Specification).
    assert str(records_directory({"HOME": "/x", "XDG_STATE_HOME": "state"})) == (
        "/x/.local/state/modelpack/accepted"
    )
