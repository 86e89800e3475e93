"""What an import finds on the node: proved when asked for, reused when hashed, and named anew."""

import pytest

import modelpack
from modelpack.errors import IntegrityError
from modelpack.reference import parse_reference
from modelpack.runtime.containerd import import_model
from tests.support.importing import assert_mounts, options
from tests.support.models import copy_tree, one_shard, write_files
from tests.support.nodestate import assert_nothing_unfinished, snapshot_directories
from tests.support.samplemodel import build_sample

GROUP = "reuse"


pytestmark = [
    pytest.mark.real("docker-registry", "containerd", "runc", "busybox", "skopeo"),
    pytest.mark.root,
]


@pytest.fixture
def model(tmp_path):
    return build_sample(tmp_path / "model")


# --- full verification ------------------------------------------------------------------------------


def test_full_verification_finds_a_changed_snapshot(node, model, reference):
    modelpack.push(model, reference)
    import_model(reference, options(node))
    assert import_model(reference, options(node, verify="full")).pull.verified == "full"
    weights = next(
        directory / "model-00001-of-00002.safetensors"
        for directory in snapshot_directories(node)
        if (directory / "model-00001-of-00002.safetensors").exists()
    )
    with weights.open("r+b") as file:
        file.seek(100_000)
        file.write(b"\0\1\2\3")
    with pytest.raises(IntegrityError, match=r"is damaged; remove the image \(crictl rmi\)"):
        import_model(reference, options(node, verify="full"))
    assert_nothing_unfinished(node)
    node.remove_image(reference)
    import_model(reference, options(node, verify="full"))
    assert_mounts(node, reference, model)


def test_full_verification_of_the_metadata(node, model, reference):
    modelpack.push(model, reference)
    import_model(reference, options(node, verify="full"))
    facts = [path / ".modelpack/model.json" for path in snapshot_directories(node)]
    next(path for path in facts if path.exists()).write_bytes(b"{}")
    with pytest.raises(IntegrityError, match="metadata files"):
        import_model(reference, options(node, verify="full"))


# --- reuse ------------------------------------------------------------------------------------------


@pytest.fixture
def versions(tmp_path, reference):
    """Two versions: the first shard has another tensor, so no layer's chain is the same."""
    old = write_files(
        tmp_path / "old",
        {
            f"w{number}.safetensors": one_shard([number, number + 10], size=5_000_000)
            for number in range(3)
        }
        | {"config.json": b"{}"},
    )
    new = copy_tree(old, tmp_path / "new")
    write_files(new, {"w0.safetensors": one_shard([0, 99], size=5_000_000)})
    second = reference.replace(":v1", ":v2")
    modelpack.push(old, reference)
    modelpack.push(new, second)
    return reference, second, new


@pytest.mark.parametrize("first_by", ["import", "stock"])
def test_an_upgrade_fetches_what_changed(first_by, node, versions):
    first, second, new = versions
    if first_by == "import":
        import_model(first, options(node))
    else:
        node.pull_image(first)
    result = import_model(second, options(node))
    assert result.pull.fetched_bytes < 5_000_000 + 100_000
    assert result.imported_bytes == result.pull.bytes
    assert_mounts(node, second, new)
    assert_mounts(node, first, new.parent / "old")
    assert_nothing_unfinished(node)


def test_reused_chunks_are_hashed(node, versions):
    first, second, new = versions
    import_model(first, options(node))
    for directory in snapshot_directories(node):
        for path in directory.glob("w*.safetensors"):
            with path.open("r+b") as file:
                file.seek(2_000_000)
                file.write(bytes(1000))
    result = import_model(second, options(node, verify="full"))
    assert result.pull.fetched_bytes > 10_000_000
    assert_mounts(node, second, new)


def test_chunks_of_a_seed_directory_are_reused(node, model, reference):
    modelpack.push(model, reference)
    result = import_model(reference, options(node, seeds=(model,)))
    assert result.pull.fetched_bytes < 50_000
    assert result.imported_bytes == result.pull.bytes
    assert_mounts(node, reference, model)


# --- names ------------------------------------------------------------------------------------------


def test_a_tag_that_moves_meanwhile_leads_to_what_was_verified(node, model, reference, tmp_path):
    pushed = modelpack.push(model, reference)
    other = write_files(tmp_path / "other", {"config.json": b"{}"})

    def move(*_):
        modelpack.push(other, reference)

    result = import_model(reference, options(node), gate=move)
    assert result.pull.digest == pushed.digest
    assert node.image_status(reference).id == result.image_id
    assert_mounts(node, reference, model)


def test_a_superseded_version_is_left_to_the_kubelet(node, versions):
    first, second, _ = versions
    repository = first.rpartition(":")[0]
    moving = f"{repository}:latest"
    modelpack.copy(first, moving)
    old = import_model(moving, options(node))
    modelpack.copy(second, moving)
    new = import_model(moving, options(node))
    assert node.image_status(new.image_id).pinned
    assert not node.image_status(old.image_id).pinned
    kept = import_model(first, options(node))  # another tag names it again
    assert kept.image_id == old.image_id
    assert node.image_status(old.image_id).pinned


def test_a_reference_by_digest_gets_no_tag(node, model, reference):
    pushed = modelpack.push(model, reference)
    import_model(f"{reference}@{pushed.digest}", options(node))
    assert node.image_status(reference) is None
    assert_mounts(node, f"{reference.rpartition(':')[0]}@{pushed.digest}", model)


def test_an_image_may_be_recorded_under_another_name(node, model, reference, start_registry):
    mirror = start_registry()
    modelpack.push(model, reference)
    mirrored = f"{mirror.host}/mirrored/model:v1"
    modelpack.copy(reference, mirrored)
    name = parse_reference(reference)
    result = import_model(mirrored, options(node, name=name))
    assert node.image_status(reference).id == result.image_id
    assert node.image_status(mirrored) is None
