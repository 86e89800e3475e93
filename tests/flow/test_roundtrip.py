"""What is pushed comes back, byte for byte and mode for mode, from any kind of repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import modelpack
from modelpack.descriptor import OCI_LAYER_TAR
from modelpack.errors import FormatError, IntegrityError, NotFoundError, UsageError
from modelpack.layering import MAX_LAYERS
from tests.support.faultregistry import FaultRegistry
from tests.support.models import CHUNK, one_shard, random_bytes, read_tree, write_files

LONG = "/".join(["d" * 60] * 3) + "/" + "f" * 250


@pytest.fixture(params=["layout", "registry"])
def place(request, tmp_path):
    """A repository name without a tag, of each kind."""
    if request.param == "layout":
        yield f"oci:{tmp_path / 'store'}"
        return
    with FaultRegistry() as registry:
        yield f"{registry.host}/team/model"
        assert registry.violations == []


def build_model(root: Path) -> Path:
    write_files(
        root,
        {
            "model-00001-of-00002.safetensors": one_shard(range(8), size=700_000),
            "model-00002-of-00002.safetensors": one_shard(range(8, 16), size=700_000),
            "model.safetensors.index.json": b'{"weight_map":{}}',
            "config.json": b'{"model_type":"llama","architectures":["LlamaForCausalLM"]}',
            ".gitattributes": b"*.safetensors filter=lfs\n",
            ".hidden/deep/file": b"x",
            "empty": b"",
            "one": b"1",
            "chunk-1": random_bytes(CHUNK - 1, 1),
            "chunk": random_bytes(CHUNK, 2),
            "chunk+1": random_bytes(CHUNK + 1, 3),
            LONG: b"long",
            "наука/модель-日本語.txt": "содержание".encode(),
            "run.sh": b"#!/bin/sh\n",
        },
    )
    (root / "run.sh").chmod(0o755)
    for path, _, files in os.walk(root):
        for name in files:
            if name != "run.sh":
                Path(path, name).chmod(0o644)
    return root


def test_everything_comes_back(place, tmp_path):
    model = build_model(tmp_path / "model")
    pushed = modelpack.push(model, f"{place}:v1")
    pulled = modelpack.pull(f"{place}:v1", tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(model)
    assert pulled.digest == pushed.digest
    assert pulled.files == pushed.files == len(read_tree(model))
    assert pulled.bytes == pushed.bytes
    assert pulled.reused_bytes == 0
    report = modelpack.verify(tmp_path / "out")
    assert report.ok
    assert report.digest == pushed.digest


def test_everything_comes_back_past_the_page_cache(place, tmp_path):
    model = build_model(tmp_path / "model")
    modelpack.push(model, f"{place}:v1")
    for _ in range(2):
        pulled = modelpack.pull(f"{place}:v1", tmp_path / "out", page_cache=False, verify="full")
        assert read_tree(tmp_path / "out") == read_tree(model)
    assert pulled.reused_bytes == pulled.bytes
    copied = modelpack.pull(
        f"{place}:v1", tmp_path / "copy", seeds=[tmp_path / "out"], page_cache=False
    )
    assert copied.reused_bytes == copied.bytes
    assert read_tree(tmp_path / "copy") == read_tree(model)


def test_second_push_and_pull_move_nothing(place, tmp_path):
    model = build_model(tmp_path / "model")
    first = modelpack.push(model, f"{place}:v1")
    again = modelpack.push(model, f"{place}:v1")
    assert (again.digest, again.uploaded_bytes) == (first.digest, 0)
    modelpack.pull(f"{place}:v1", tmp_path / "out")
    before = {path: os.stat(tmp_path / "out" / path).st_ino for path in read_tree(model)}
    pulled = modelpack.pull(f"{place}:v1", tmp_path / "out")
    assert pulled.reused_bytes == pulled.bytes
    assert pulled.fetched_bytes < 20_000
    assert {path: os.stat(tmp_path / "out" / path).st_ino for path in before} == before


def test_same_content_same_digest_from_anywhere(place, tmp_path):
    model = build_model(tmp_path / "model")
    digest = modelpack.push(model, f"{place}:v1").digest
    elsewhere = tmp_path / "another" / "name"
    elsewhere.mkdir(parents=True)
    old_umask = os.umask(0o077)
    try:
        for path, (mode, data) in sorted(read_tree(model).items(), reverse=True):
            write_files(elsewhere, {path: data})
            (elsewhere / path).chmod(0o700 if mode & 0o100 else 0o600)
            os.utime(elsewhere / path, (1_000_000_000, 1_000_000_000))
    finally:
        os.umask(old_umask)
    assert modelpack.push(elsewhere, f"{place}:v2", use_cache=False).digest == digest


@pytest.mark.root
def test_another_user_gets_the_same_digest(tmp_path):
    model = build_model(tmp_path / "model")
    digest = modelpack.push(model, f"oci:{tmp_path / 'a'}:v1").digest
    open_to_all = tmp_path / "open"
    shutil.copytree(model, open_to_all / "model")
    subprocess.run(["chown", "-R", "65534:65534", open_to_all], check=True)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    code = (
        "import os, sys; os.umask(0o077)\n"
        "import modelpack.api, modelpack.pushing\n"
        "os.setgid(65534); os.setuid(65534)\n"
        f"print(modelpack.push({str(open_to_all / 'model')!r}, "
        f"{'oci:' + str(open_to_all / 'store') + ':v1'!r}, use_cache=False).digest)"
    )
    env = {**os.environ, "HOME": str(open_to_all), "XDG_CACHE_HOME": str(open_to_all / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == digest


def test_many_shards_fit_into_the_layers_runtimes_take(place, tmp_path):
    model = write_files(
        tmp_path / "model",
        {
            f"model-{number:05}-of-00163.safetensors": one_shard([number], size=CHUNK + 100)
            for number in range(1, 164)
        }
        | {"config.json": b"{}"},
    )
    pushed = modelpack.push(model, f"{place}:v1")
    assert pushed.layers == MAX_LAYERS
    modelpack.pull(f"{place}:v1", tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(model)


def test_ten_thousand_small_files(place, tmp_path):
    model = write_files(
        tmp_path / "model",
        {f"{number % 100:02}/{number}.txt": str(number).encode() for number in range(10_000)},
    )
    pushed = modelpack.push(model, f"{place}:v1")
    assert (pushed.files, pushed.layers) == (10_000, 2)
    modelpack.pull(f"{place}:v1", tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(model)
    assert modelpack.verify(tmp_path / "out").ok


def test_upgrade_fetches_only_what_changed(place, tmp_path):
    model = build_model(tmp_path / "model")
    modelpack.push(model, f"{place}:v1")
    modelpack.pull(f"{place}:v1", tmp_path / "out")
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    data = bytearray((model / shards[0]).read_bytes())
    data[-300_000:-299_000] = bytes(1000)  # inside the last layer's large tensor
    write_files(model, {shards[0]: bytes(data), "new.txt": b"new"})
    (model / "one").unlink()
    (model / shards[1]).rename(model / "renamed.safetensors")
    modelpack.push(model, f"{place}:v2")
    pulled = modelpack.pull(f"{place}:v2", tmp_path / "out")
    expected = read_tree(model)
    assert read_tree(tmp_path / "out") == expected
    assert pulled.removed == 2
    assert pulled.bytes - pulled.reused_bytes == 700_000 + len(b"new")
    assert 700_000 < pulled.fetched_bytes < 900_000


def test_seed_directory_saves_the_fetch(place, tmp_path):
    model = build_model(tmp_path / "model")
    modelpack.push(model, f"{place}:v1")
    pulled = modelpack.pull(f"{place}:v1", tmp_path / "out", seeds=[model])
    assert pulled.reused_bytes == pulled.bytes
    assert read_tree(tmp_path / "out") == read_tree(model)


def test_selection_is_remembered_by_verify(place, tmp_path):
    model = build_model(tmp_path / "model")
    modelpack.push(model, f"{place}:v1")
    modelpack.pull(f"{place}:v1", tmp_path / "out", include=["*.safetensors"])
    assert {path.split("/")[-1] for path in read_tree(tmp_path / "out")} == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }
    report = modelpack.verify(tmp_path / "out")
    assert report.ok
    assert report.unselected == len(read_tree(model)) - 2
    modelpack.pull(f"{place}:v1", tmp_path / "out")
    assert read_tree(tmp_path / "out") == read_tree(model)
    with pytest.raises(NotFoundError, match="matches"):
        modelpack.pull(f"{place}:v1", tmp_path / "none", include=["*.nothing"])


def test_a_narrower_selection_takes_nothing_away(place, tmp_path):
    model = build_model(tmp_path / "model")
    modelpack.push(model, f"{place}:v1")
    modelpack.pull(f"{place}:v1", tmp_path / "out")
    narrow = modelpack.pull(f"{place}:v1", tmp_path / "out", include=["config.json"])
    assert (narrow.files, narrow.removed) == (1, 0)
    assert read_tree(tmp_path / "out") == read_tree(model)
    assert modelpack.verify(tmp_path / "out").unselected == 0
    write_files(model, {"one": b"another", "config.json": b"{}"})
    modelpack.push(model, f"{place}:v2")
    mixed = modelpack.pull(f"{place}:v2", tmp_path / "out", include=["config.json"])
    assert mixed.removed == 1  # "one" is of the old version, and the new one was not asked for
    assert modelpack.verify(tmp_path / "out").unselected == 1


def test_edits_of_the_user_are_replaced_with_a_warning(place, tmp_path):
    model = build_model(tmp_path / "model")
    modelpack.push(model, f"{place}:v1")
    modelpack.pull(f"{place}:v1", tmp_path / "out")
    (tmp_path / "out" / "config.json").write_bytes(b"edited")
    pulled = modelpack.pull(f"{place}:v1", tmp_path / "out")
    assert [warning for warning in pulled.warnings if "config.json was changed" in warning]
    assert read_tree(tmp_path / "out") == read_tree(model)


def test_a_copy_without_a_tag_becomes_latest(place, tmp_path):
    model = write_files(tmp_path / "model", {"config.json": b"{}"})
    pushed = modelpack.push(model, f"{place}:v1")
    modelpack.copy(f"{place}:v1", f"oci:{tmp_path / 'copy'}")
    assert modelpack.tags(f"oci:{tmp_path / 'copy'}") == ["latest", "latest-modelpack"]
    modelpack.copy(f"{place}@{pushed.digest}", f"oci:{tmp_path / 'by-digest'}")
    assert modelpack.tags(f"oci:{tmp_path / 'by-digest'}") == []


def test_push_selection_and_prefix(place, tmp_path):
    model = build_model(tmp_path / "model")
    modelpack.push(model, f"{place}:v1", include=["*.json"], exclude=["config*"], prefix="models/a")
    modelpack.pull(f"{place}:v1", tmp_path / "out")
    assert list(read_tree(tmp_path / "out")) == ["models/a/model.safetensors.index.json"]


def test_full_verification_rebuilds_the_layers(place, tmp_path):
    model = build_model(tmp_path / "model")
    modelpack.push(model, f"{place}:v1")
    assert modelpack.pull(f"{place}:v1", tmp_path / "out", verify="full").verified == "full"
    assert modelpack.verify_reference(f"{place}:v1", full=True).ok


def test_verify_names_every_difference_and_pull_repairs(place, tmp_path):
    model = build_model(tmp_path / "model")
    modelpack.push(model, f"{place}:v1")
    out = tmp_path / "out"
    modelpack.pull(f"{place}:v1", out)
    data = bytearray((out / "chunk+1").read_bytes())
    data[CHUNK] ^= 1
    (out / "chunk+1").write_bytes(bytes(data))
    (out / "one").unlink()
    (out / "stranger").write_text("not mine")
    report = modelpack.verify(out)
    assert (report.missing, report.changed, report.extra) == (("one",), ("chunk+1",), ("stranger",))
    modelpack.pull(f"{place}:v1", out)
    assert (out / "stranger").read_text() == "not mine"
    (out / "stranger").unlink()
    assert read_tree(out) == read_tree(model)


def test_damage_that_keeps_size_and_times_is_found(place, tmp_path):
    model = build_model(tmp_path / "model")
    modelpack.push(model, f"{place}:v1")
    out = tmp_path / "out"
    modelpack.pull(f"{place}:v1", out)
    victim = out / "chunk"
    status = victim.stat()
    with victim.open("r+b") as file:
        file.write(b"\0")
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert modelpack.verify(out).changed == ("chunk",)
    modelpack.pull(f"{place}:v1", out, verify="full")
    assert read_tree(out) == read_tree(model)


def test_files_of_the_user_are_not_overwritten(place, tmp_path):
    model = build_model(tmp_path / "model")
    modelpack.push(model, f"{place}:v1")
    out = write_files(
        tmp_path / "out", {"config.json": b"mine", "chunk": (model / "chunk").read_bytes()}
    )
    with pytest.raises(UsageError, match=r"config\.json exists.*--force"):
        modelpack.pull(f"{place}:v1", out)
    assert (out / "config.json").read_bytes() == b"mine"
    modelpack.pull(f"{place}:v1", out, force=True)
    assert read_tree(out) == read_tree(model)


def test_pull_by_digest_and_copy(place, tmp_path):
    model = build_model(tmp_path / "model")
    pushed = modelpack.push(model, f"{place}:v1")
    modelpack.pull(f"{place}@{pushed.digest}", tmp_path / "by-digest")
    assert read_tree(tmp_path / "by-digest") == read_tree(model)
    copied = modelpack.copy(f"{place}:v1", f"oci:{tmp_path / 'copy'}:v9")
    assert copied.digest == pushed.digest
    assert modelpack.tags(f"oci:{tmp_path / 'copy'}") == ["v9", "v9-modelpack"]
    modelpack.pull(f"oci:{tmp_path / 'copy'}:v9", tmp_path / "copied")
    assert read_tree(tmp_path / "copied") == read_tree(model)


def test_layers_are_stock_and_last_is_metadata(tmp_path):
    model = build_model(tmp_path / "model")
    reference = f"oci:{tmp_path / 'store'}:v1"
    modelpack.push(model, reference)
    from modelpack.connect import open_repository

    with open_repository(reference) as repository:
        manifest = repository.fetch_manifest("v1")
    assert manifest.artifact_type is None
    assert {layer.media_type for layer in manifest.layers} == {OCI_LAYER_TAR}
    assert manifest.annotations["dev.modelpack.metadata"] == str(manifest.layers[-1].digest)


def huggingface_cache(root: Path) -> Path:
    snapshot = root / "models--org--name" / "snapshots" / "abc"
    write_files(root / "models--org--name" / "blobs", {"1111": b"weights", "2222": b"{}"})
    snapshot.mkdir(parents=True)
    (snapshot / "model.bin").symlink_to("../../blobs/1111")
    (snapshot / "config.json").symlink_to("../../blobs/2222")
    return snapshot


def test_symlinks_that_stay_inside_are_followed(place, tmp_path):
    snapshot = huggingface_cache(tmp_path / "cache-hf")
    (snapshot / "alias.bin").symlink_to("model.bin")
    modelpack.push(snapshot, f"{place}:v1")
    modelpack.pull(f"{place}:v1", tmp_path / "out")
    assert {path: data for path, (_, data) in read_tree(tmp_path / "out").items()} == {
        "model.bin": b"weights",
        "alias.bin": b"weights",
        "config.json": b"{}",
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda d: (d / "x").symlink_to("/etc/passwd"), "outside", id="absolute"),
        pytest.param(lambda d: (d / "x").symlink_to("../secret"), "outside", id="parent"),
        pytest.param(lambda d: (d / "x").symlink_to("gone"), "to nothing", id="dangling"),
        pytest.param(lambda d: (d / "x").symlink_to("sub"), "directory", id="directory"),
        pytest.param(lambda d: os.mkfifo(d / "x"), "a FIFO", id="fifo"),
        pytest.param(lambda d: (d / ".wh.x").write_text(""), "whiteout", id="whiteout"),
        pytest.param(lambda d: (d / "a\\b").write_text(""), "backslash", id="backslash"),
        pytest.param(lambda d: (d / "a\nb").write_text(""), "control", id="newline"),
        pytest.param(lambda d: (d / "CONFIG.json").write_text(""), "collide", id="case"),
        pytest.param(
            lambda d: Path(os.fsdecode(bytes(d) + b"/\xff")).write_text(""), "UTF-8", id="utf8"
        ),
        pytest.param(
            lambda d: (d / "model.safetensors").write_bytes(b"\xff" * 100),
            "model.safetensors",
            id="bad-header",
        ),
    ],
)
def test_what_cannot_be_packed_is_refused_by_name(make, message, tmp_path):
    model = write_files(tmp_path / "model", {"config.json": b"{}", "sub/file": b"x"})
    write_files(tmp_path, {"secret": b"secret"})
    make(model)
    with pytest.raises(FormatError, match=message):
        modelpack.push(model, f"oci:{tmp_path / 'store'}:v1")
    assert (
        not (tmp_path / "store" / "index.json").exists()
        or modelpack.tags(f"oci:{tmp_path / 'store'}") == []
    )


def test_symlink_in_hf_cache_outside_its_own_blobs_is_refused(tmp_path):
    snapshot = huggingface_cache(tmp_path / "cache-hf")
    write_files(tmp_path / "cache-hf" / "models--org--other" / "blobs", {"3333": b"other"})
    (snapshot / "other.bin").symlink_to("../../../models--org--other/blobs/3333")
    with pytest.raises(FormatError, match="outside"):
        modelpack.push(snapshot, f"oci:{tmp_path / 'store'}:v1")


def test_a_file_that_changes_while_it_is_pushed_fails_clearly(tmp_path, monkeypatch):
    model = write_files(tmp_path / "model", {"a.bin": random_bytes(CHUNK * 2)})
    from modelpack import packing

    original = packing.chunk_lengths_of

    def touch(fd, path, size):
        with (model / "a.bin").open("r+b") as file:
            file.seek(size - 1)
            file.write(b"!")
        return original(fd, path, size)

    monkeypatch.setattr(packing, "chunk_lengths_of", touch)
    with pytest.raises(IntegrityError, match="changed while"):
        modelpack.push(model, f"oci:{tmp_path / 'store'}:v1")
