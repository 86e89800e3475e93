"""Other programs copy what modelpack pushed, change it or not, and modelpack pulls the copy."""

import hashlib
import json
import tarfile

import httpx
import pytest

import modelpack
from tests.support import programs
from tests.support.command import Command
from tests.support.samplemodel import build_sample, digests_of

pytestmark = [pytest.mark.real("docker-registry"), pytest.mark.root]

INSECURE = ("--src-tls-verify=false", "--dest-tls-verify=false")
PLAIN = ("--from-plain-http", "--to-plain-http")


@pytest.fixture
def model(tmp_path):
    return build_sample(tmp_path / "model")


@pytest.fixture
def pushed(model, docker_registry, request, tmp_path):
    """What a push of the model returned; each test has a repository of its own."""
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    return modelpack.push(model, f"{docker_registry.host}/copiers/{name}:v1")


def manifest_of(registry, reference: str) -> dict:
    """Return the manifest at a reference as the registry's own bytes say it."""
    repository, tag = reference.removeprefix(f"{registry.host}/").rsplit(":", 1)
    answer = httpx.get(
        f"{registry.url}/v2/{repository}/manifests/{tag}",
        headers={
            "Accept": "application/vnd.oci.image.manifest.v1+json, "
            "application/vnd.docker.distribution.manifest.v2+json"
        },
    )
    return answer.raise_for_status().json()


@pytest.mark.real("podman")
def test_podman_pulls_and_mounts_it(pushed, model, podman):
    podman.run("pull", "--tls-verify=false", pushed.reference)
    listed = podman.in_mounted_image(
        pushed.reference,
        "find . -type f -not -path './.modelpack/*' -exec sha256sum {} + | sort -k2\n"
        "echo =\nfind . -type f -not -path './.modelpack/*' -exec stat -c '%a %n' {} +",
    )
    digests, modes = (part.splitlines() for part in listed.split("\n=\n"))
    by_path = dict(reversed(line.split("  ./", 1)) for line in digests)
    mode_of = dict(reversed(line.split(" ./", 1)) for line in modes)
    seen = {path: (int(mode_of[path], 8), digest) for path, digest in by_path.items()}
    assert seen == digests_of(model)


@pytest.mark.real("skopeo")
def test_skopeo_copies_it_to_another_registry_and_back(
    pushed, model, docker_registry, start_registry, tmp_path
):
    elsewhere = start_registry()
    there, back = f"{elsewhere.host}/team/model:v1", f"{docker_registry.host}/copiers/back:v1"
    for source, target in ((pushed.reference, there), (there, back)):
        programs.run(
            "skopeo", "copy", "--preserve-digests", *INSECURE,
            f"docker://{source}", f"docker://{target}",
        )  # fmt: skip
    pulled = modelpack.pull(back, tmp_path / "out")
    assert (pulled.digest, pulled.verified, pulled.warnings) == (pushed.digest, "chunks", ())
    assert digests_of(tmp_path / "out") == digests_of(model)


@pytest.mark.real("oras")
def test_oras_copies_it_with_what_refers_to_it(
    pushed, model, docker_registry, start_registry, tmp_path
):
    note = tmp_path / "note.txt"
    note.write_text("reviewed")
    programs.run(
        "oras", "attach", "--plain-http", "--artifact-type=application/vnd.example.review",
        pushed.reference, f"{note.name}:text/plain", cwd=tmp_path,
    )  # fmt: skip
    elsewhere = start_registry()
    there, back = f"{elsewhere.host}/team/model:v1", f"{docker_registry.host}/copiers/oras:v1"
    for source, target in ((pushed.reference, there), (there, back)):
        programs.run("oras", "copy", "-r", *PLAIN, source, target)
    pulled = modelpack.pull(back, tmp_path / "out")
    assert (pulled.digest, pulled.warnings) == (pushed.digest, ())
    assert digests_of(tmp_path / "out") == digests_of(model)


@pytest.mark.real("oras")
def test_our_copy_keeps_what_oras_attached_and_the_companion(
    pushed, start_registry, tmp_path, monkeypatch
):
    note = tmp_path / "note.txt"
    note.write_text("reviewed")
    programs.run(
        "oras", "attach", "--plain-http", "--artifact-type=application/vnd.example.review",
        pushed.reference, f"{note.name}:text/plain", cwd=tmp_path,
    )  # fmt: skip
    there = f"{start_registry().host}/team/model:v1"
    copied = modelpack.copy(pushed.reference, there)
    assert (copied.digest, copied.referrers) == (pushed.digest, 1)
    found = programs.run("oras", "discover", "--plain-http", "--format=json", there).stdout
    (referrer,) = json.loads(found)["referrers"]
    assert referrer["artifactType"] == "application/vnd.example.review"
    back = tmp_path / "back"
    name = there.rsplit(":", 1)[0]
    programs.run("oras", "pull", "--plain-http", f"--output={back}", f"{name}@{referrer['digest']}")
    assert (back / "note.txt").read_text() == "reviewed"
    fallback = (
        f"sha256-{pushed.digest.removeprefix('sha256:')}"  # docker-registry lists no referrers
    )
    assert modelpack.tags(there) == [fallback, "v1", "v1-modelpack"]


@pytest.mark.real("skopeo")
@pytest.mark.parametrize(
    ("options", "layer_type"),
    [
        pytest.param(
            ("--dest-compress", "--dest-compress-format=gzip"),
            "application/vnd.oci.image.layer.v1.tar+gzip",
            id="gzip",
        ),
        pytest.param(
            ("--dest-compress", "--dest-compress-format=zstd"),
            "application/vnd.oci.image.layer.v1.tar+zstd",
            id="zstd",
        ),
        pytest.param(
            ("--dest-compress", "--dest-compress-format=zstd:chunked"),
            "application/vnd.oci.image.layer.v1.tar+zstd",
            id="zstd-chunked",
        ),
        pytest.param(
            ("--format=v2s2",),
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            id="docker",
        ),
    ],
)
def test_a_copy_with_changed_layers_is_pulled_whole_with_a_warning(
    pushed, model, start_registry, tmp_path, options, layer_type
):
    # Where the same blobs are at hand skopeo takes them as they are, so the copy goes elsewhere.
    elsewhere = start_registry()
    changed = f"{elsewhere.host}/team/model:v1"
    programs.run(
        "skopeo", "copy", *INSECURE, *options, f"docker://{pushed.reference}", f"docker://{changed}"
    )
    assert {layer["mediaType"] for layer in manifest_of(elsewhere, changed)["layers"]} == {
        layer_type
    }
    command = Command(tmp_path / "home")
    pulled = command.json("pull", changed, tmp_path / "out")
    assert pulled["digest"] != pushed.digest
    assert (pulled["verified"], len(pulled["warnings"])) == ("layers", 1)
    assert "recompressed" in pulled["warnings"][0]
    assert digests_of(tmp_path / "out") == digests_of(model)
    assert command.json("verify", tmp_path / "out")["ok"]


@pytest.mark.real("crane")
def test_crane_flattens_it_to_the_right_files(pushed, model, tmp_path):
    # `crane validate` only knows compressed layers; `crane export` merges layers of any kind.
    programs.run("crane", "export", "--insecure", pushed.reference, tmp_path / "flat.tar")
    with tarfile.open(tmp_path / "flat.tar") as tar:
        tar.extractall(tmp_path / "flat", filter="tar")
    assert digests_of(tmp_path / "flat") == digests_of(model)


@pytest.mark.real("crane")
def test_a_layout_that_crane_wrote_is_pulled_by_digest(pushed, model, tmp_path):
    layout = tmp_path / "layout"
    programs.run("crane", "pull", "--insecure", "--format=oci", pushed.reference, layout)
    # crane names nothing in a layout, so the digest does
    pulled = modelpack.pull(f"oci:{layout}@{pushed.digest}", tmp_path / "out")
    assert pulled.verified == "chunks"
    assert digests_of(tmp_path / "out") == digests_of(model)


@pytest.mark.real("skopeo", "oras")
@pytest.mark.parametrize("program", ["skopeo", "oras"])
def test_a_layout_of_theirs_is_pulled(pushed, model, tmp_path, program):
    layout = tmp_path / "layout"
    if program == "skopeo":
        programs.run(
            "skopeo", "copy", "--preserve-digests", "--src-tls-verify=false",
            f"docker://{pushed.reference}", f"oci:{layout}:v1",
        )  # fmt: skip
    else:
        programs.run(
            "oras", "copy", "--from-plain-http", "--to-oci-layout", pushed.reference, f"{layout}:v1"
        )
    pulled = modelpack.pull(f"oci:{layout}:v1", tmp_path / "out")
    assert (pulled.digest, pulled.verified) == (pushed.digest, "chunks")
    assert digests_of(tmp_path / "out") == digests_of(model)


@pytest.mark.real("skopeo", "oras")
@pytest.mark.parametrize("program", ["skopeo", "oras"])
def test_a_layout_of_ours_is_copied_by_them(model, docker_registry, tmp_path, program):
    layout = tmp_path / "store"
    made = modelpack.push(model, f"oci:{layout}:v1")
    there = f"{docker_registry.host}/copiers/from-layout-{program}:v1"
    if program == "skopeo":
        programs.run(
            "skopeo", "copy", "--preserve-digests", "--dest-tls-verify=false",
            f"oci:{layout}:v1", f"docker://{there}",
        )  # fmt: skip
    else:
        programs.run("oras", "copy", "--from-oci-layout", "--to-plain-http", f"{layout}:v1", there)
    pulled = modelpack.pull(there, tmp_path / "out")
    assert (pulled.digest, pulled.verified) == (made.digest, "chunks")
    assert digests_of(tmp_path / "out") == digests_of(model)
