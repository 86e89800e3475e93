"""What signing writes, held against the published schemas of its formats.

in-toto's Statement and SLSA's Provenance by the classes that in-toto publishes, generated from the
official definitions, unknown members refused; bundles by sigstore's own models; SBOMs by CycloneDX's
and SPDX's schemas in ``tests/unit/sbom``.
"""

import base64
import json
import subprocess

import pytest
from sigstore_models.bundle.v1 import Bundle

from modelpack.connect import open_repository
from modelpack.digest import Digest
from modelpack.trust.collecting import collect
from tests.support.models import one_shard, write_files
from tests.support.programs import find_program
from tests.support.trust import TrustCommand
from tests.unit.sbom.validators import check_cyclonedx
from tests.unit.signing.sigstore_services import Deployment

pytestmark = pytest.mark.real("model_signing")

READ = """
import json, sys
from google.protobuf.json_format import ParseDict
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as Message
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
for value in json.load(sys.stdin):
    message = ParseDict(value, Message())
    if value["predicate"]:  # it takes cosign's empty one for a missing one
        Statement.copy_from_pb(message).validate()
    if value["predicateType"] == "https://slsa.dev/provenance/v1":
        ParseDict(value["predicate"], Provenance())
"""
CI = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "o/r",
    "GITHUB_REF": "refs/heads/main",
    "GITHUB_SHA": "a" * 40,
    "GITHUB_RUN_ID": "17",
    "GITHUB_WORKFLOW_REF": "o/r/.github/workflows/release.yml@refs/heads/main",
    "GITHUB_EVENT_NAME": "push",
}
GITLAB = {
    "GITLAB_CI": "true",
    "CI_PROJECT_URL": "https://gitlab.example/o/r",
    "CI_COMMIT_SHA": "a" * 40,
    "CI_COMMIT_REF_NAME": "main",
    "CI_JOB_URL": "https://gitlab.example/o/r/-/jobs/1",
    "CI_JOB_STARTED_AT": "2026-01-01T00:00:00Z",
    "CI_PIPELINE_ID": "7",
}


def read_statements(statements):
    python = find_program("model_signing").resolve().with_name("python")
    done = subprocess.run(
        [python, "-c", READ], input=json.dumps(statements), capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def attached(pushed):
    """Return every bundle that lies beside a model, as JSON."""
    with open_repository(f"{pushed['reference']}@{pushed['digest']}") as repository:
        found = collect(repository, Digest.parse(pushed["digest"]))
    assert found.problems == ()
    return [json.loads(raw) for _, raw in (*found.bundles, *found.model_signatures)]


@pytest.mark.parametrize(
    ("around", "keyless"),
    [({}, False), (CI, False), (GITLAB, False), (CI, True)],
    ids=["local", "github", "gitlab", "github-identity"],
)
def test_everything_that_is_attached(tmp_path, around, keyless):
    command = TrustCommand(tmp_path, around)
    model = write_files(
        tmp_path / "model",
        {
            "model.safetensors": one_shard([1], size=50_000),
            "config.json": b'{"model_type":"llama"}',
            "README.md": b"---\nlicense: mit\nbase_model: example/base\ndatasets: [a/b]\n---\n",
        },
    )
    push = ("push", model, f"oci:{tmp_path / 'store'}:v1", "--sign", "--attest", "sbom,provenance")
    if keyless:
        with Deployment(rekor=2) as sigstore:
            (tmp_path / "trust.json").write_bytes(sigstore.trust_config())
            (tmp_path / "token").write_text(sigstore.token())
            pushed = command.json(
                *push, "--identity-token", tmp_path / "token",
                "--trust-config", tmp_path / "trust.json",
            )  # fmt: skip
    else:
        pushed = command.json(*push, "--key", command.key_pair("team")[0])
    bundles = attached(pushed)
    assert len(bundles) == 4
    for bundle in bundles:
        # Protocol buffers' JSON leaves empty lists out; these models want this one.
        bundle["verificationMaterial"].setdefault("tlogEntries", [])
        Bundle.from_json(json.dumps(bundle))
    statements = [
        json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"])) for bundle in bundles
    ]
    if not keyless:
        # cosign leaves the subject's name out, which in-toto's definition does not require.
        for statement in statements:
            statement["subject"][0].setdefault("name", "")
    read_statements(statements)
    [sbom] = [one for one in statements if one["predicateType"] == "https://cyclonedx.org/bom"]
    check_cyclonedx(json.dumps(sbom["predicate"]).encode())


def test_what_is_malformed_is_noticed():
    """The classes do refuse what the definitions do not have."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "a", "digest": {"sha256": "0" * 64}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": {"buildType": "x"}, "runDetails": {"other": 1}},
    }
    with pytest.raises(AssertionError, match="other"):
        read_statements([statement])
