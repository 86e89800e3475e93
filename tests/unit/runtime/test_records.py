"""Names of snapshots and images."""

import hashlib

import pytest

from modelpack.digest import Digest
from modelpack.reference import RegistryReference, parse_reference
from modelpack.runtime.records import chain_ids, repository_name, tag_name

DIFFS = [Digest.of(bytes([number])) for number in range(3)]


def test_chain_ids_follow_the_image_specification():
    first, second, third = chain_ids(DIFFS)

    def sha256(text: str) -> str:
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    assert first == str(DIFFS[0])
    assert second == sha256(f"{DIFFS[0]} {DIFFS[1]}")
    assert third == sha256(f"{second} {DIFFS[2]}")


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("registry.example/team/model:v1", "registry.example/team/model"),
        ("127.0.0.1:5000/a/b:v1", "127.0.0.1:5000/a/b"),
        ("docker.io/redis:7", "docker.io/library/redis"),
        ("registry-1.docker.io/team/model:v1", "docker.io/team/model"),
    ],
)
def test_repositories_are_named_as_containerd_names_them(reference, expected):
    parsed = parse_reference(reference)
    assert isinstance(parsed, RegistryReference)
    assert repository_name(parsed) == expected


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("r.example/m/x:v1", "r.example/m/x:v1"),
        ("r.example/m/x", "r.example/m/x:latest"),
        (f"r.example/m/x@{DIFFS[0]}", None),
        (f"r.example/m/x:v1@{DIFFS[0]}", None),
    ],
)
def test_a_tag_is_recorded_only_where_it_was_resolved(reference, expected):
    parsed = parse_reference(reference)
    assert isinstance(parsed, RegistryReference)
    assert tag_name(parsed) == expected
