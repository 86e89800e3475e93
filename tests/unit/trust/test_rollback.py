"""A genuine signature in the wrong place: an older version, another name, another repository."""

from datetime import timedelta

import pytest

import modelpack
from modelpack.connect import open_repository
from modelpack.errors import FormatError
from modelpack.signing import simplesigning
from modelpack.signing.policy import Freshness
from modelpack.trust.attaching import attach_simple
from modelpack.trust.gate import TrustGate
from tests.unit.trust.gatework import KEY, policy, pull, push, refused, sign


def test_14_a_tag_turned_back_to_an_older_version(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:latest"
    old = push(model, reference)
    sign(reference)
    pull(reference, tmp_path / "out", policy())
    (model / "config.json").write_bytes(b'{"newer": 1}')
    push(model, reference)
    sign(reference)
    pull(reference, tmp_path / "out", policy())
    # Everything about the old one is genuine. Only that it is old has changed.
    name = reference.rpartition(":")[0]
    modelpack.copy(f"{name}@{old.digest}", reference)
    refused(reference, tmp_path / "out", policy(), "freshness.rollback", "has replaced it")
    # Who names the digest has chosen the version, and who allows it has, too.
    assert pull(f"{reference}@{old.digest}", tmp_path / "old", policy()).files == 2
    allowing = policy(freshness=Freshness(rollback="allow"))
    assert pull(reference, tmp_path / "out", allowing).digest == old.digest


def test_a_damaged_record_is_no_empty_one(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:latest"
    push(model, reference)
    sign(reference)
    pull(reference, tmp_path / "out", policy())
    [record] = (tmp_path / "XDG_STATE_HOME").rglob("*.json")
    record.write_text("{}")
    with pytest.raises(FormatError, match=str(record)):
        pull(reference, tmp_path / "out", policy())


def test_an_older_model_is_too_old(registry, model, tmp_path):
    reference = f"{registry.host}/team/model:v1"
    push(model, reference, annotations={"org.opencontainers.image.created": "2020-01-01T00:00:00Z"})
    sign(reference)
    young = policy(freshness=Freshness(max_age=timedelta(days=30)))
    refused(reference, tmp_path / "out", young, "freshness.max_age")


def test_14_an_older_signature_copied_from_another_repository(registry, model, tmp_path):
    """Unlike a bundle it names its repository, and holds for that one only."""
    first, second = (f"{registry.host}/{name}:v1" for name in ("team/model", "team/copy"))
    digest = push(model, first).digest
    with open_repository(first) as repository:
        manifest = repository.fetch_manifest("v1")
        signed = simplesigning.sign(f"{registry.host}/team/model", manifest.digest, KEY)
        attach_simple(repository, manifest, signed, sleep=lambda _: None)
    assert TrustGate(policy()).look(first).ok
    modelpack.copy(first, second)
    tag = digest.replace(":", "-") + ".sig"
    modelpack.copy(first.rpartition(":")[0] + ":" + tag, second.rpartition(":")[0] + ":" + tag)
    refused(second, tmp_path / "out", policy(), "signed, but for the repository")


def test_14_a_signed_model_cannot_stand_in_for_another(registry, model, tmp_path):
    """A bundle says nothing of the name; annotations, which the manifest holds, do."""
    reference = f"{registry.host}/team/other:v1"
    push(model, reference, annotations={"org.opencontainers.image.title": "model"})
    sign(reference)
    wanted = policy(annotations={"org.opencontainers.image.title": "other"})
    refused(reference, tmp_path / "out", wanted, "annotation", "is 'model', not 'other'")
