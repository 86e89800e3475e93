"""Where a configuration comes from: files, directories, mounted ConfigMaps, what was kept of it."""

import json

import pytest
import yaml

from modelpack.errors import NotFoundError, UsageError
from modelpack.prefetch.configfile import NODE_VARIABLE, read_config
from modelpack.prefetch.sources import DiskSource, KeptSource

TEXT = """
store: /s
budget: 20Gi
runtime: {kind: directory, path: /m}
models: [{ref: "registry.example/a:v1"}]
"""
SMALL = yaml.safe_load(TEXT)


def read(tmp_path, document):
    path = tmp_path / "daemon.yaml"
    path.write_text(yaml.safe_dump(document))
    return read_config(path, DiskSource(), {NODE_VARIABLE: "n1"})


def write_directory(tmp_path, **files):
    directory = tmp_path / "daemon.d"
    directory.mkdir()
    for name, document in files.items():
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(document))
    return directory


def models(*names):
    return {"models": [{"ref": f"registry.example/{name}:v1"} for name in names]}


def test_a_directory_is_read_as_one(tmp_path):
    base = {name: value for name, value in SMALL.items() if name != "models"}
    directory = write_directory(tmp_path, base=base, a=models("a"), b=models("b", "c"))
    (directory / "..data.yaml").write_text("nonsense: [")
    (directory / ".swp.yaml").write_text("nonsense: [")
    (directory / "notes.txt").write_text("nonsense: [")
    found = read_config(directory, DiskSource(), {})
    assert [model.reference.repository for model in found.models] == ["a", "b", "c"]


def test_a_setting_is_in_one_file_of_a_directory_only(tmp_path):
    directory = write_directory(tmp_path, a=SMALL, b={"budget": 1})
    with pytest.raises(UsageError, match=r"b.yaml: budget is in .*a.yaml already"):
        read_config(directory, DiskSource(), {})


def test_further_files_hold_models_only(tmp_path):
    write_directory(tmp_path, more=models("b"))
    document = {**SMALL, "include": "daemon.d"}
    assert len(read(tmp_path, document).models) == 2
    (tmp_path / "daemon.d" / "more.yaml").write_text("budget: 3")
    with pytest.raises(UsageError, match=r"more.yaml: budget is not known"):
        read(tmp_path, document)


def test_an_empty_directory_is_no_configuration(tmp_path):
    with pytest.raises(UsageError, match=r"holds no file that ends in .yaml"):
        read_config(tmp_path, DiskSource(), {})


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFoundError, match="does not exist"):
        read_config(tmp_path / "no.yaml", DiskSource(), {})


def swap(volume, number, text):
    """Do what a kubelet does to a mounted ConfigMap: all files change with one rename."""
    version = volume / f"..2026_{number}"
    version.mkdir(parents=True)
    (version / "daemon.yaml").write_text(text)
    (volume / "..tmp").symlink_to(version.name)
    (volume / "..tmp").rename(volume / "..data")
    if not (volume / "daemon.yaml").exists():
        (volume / "daemon.yaml").symlink_to("..data/daemon.yaml")


@pytest.mark.parametrize("name", ["", "daemon.yaml"], ids=["directory", "file"])
def test_a_mounted_configmap_that_is_swapped_has_changed(tmp_path, name):
    volume = tmp_path / "config"
    swap(volume, 1, TEXT)
    source = DiskSource()
    first = read_config(volume / name, source, {})
    assert not source.has_changed()
    swap(volume, 2, TEXT)
    assert not source.has_changed()
    swap(volume, 3, TEXT.replace("20Gi", "30Gi"))
    assert source.has_changed()
    assert read_config(volume / name, DiskSource(), {}).budget.limit > first.budget.limit


def test_a_new_or_vanished_file_of_a_directory_is_a_change(tmp_path):
    directory = write_directory(tmp_path, a=SMALL, b=models("b"))
    source = DiskSource()
    read_config(directory, source, {})
    (directory / "c.yaml").write_text("models: []")
    assert source.has_changed()
    (directory / "c.yaml").unlink()
    assert not source.has_changed()
    (directory / "b.yaml").unlink()
    assert source.has_changed()


def test_what_was_kept_reads_the_same_without_the_files(tmp_path):
    (tmp_path / "labels").write_text('zone="a"\n')
    write_directory(tmp_path, more=models("b"))
    document = {**SMALL, "include": "daemon.d", "node": {"labelsFile": "labels"}}
    path = tmp_path / "daemon.yaml"
    path.write_text(yaml.safe_dump(document))
    source = DiskSource()
    first = read_config(path, source, {NODE_VARIABLE: "n"})
    kept = KeptSource(json.loads(json.dumps(source.to_json())))
    for file in (path, tmp_path / "labels", tmp_path / "daemon.d" / "more.yaml"):
        file.unlink()
    assert read_config(path, kept, {NODE_VARIABLE: "n"}) == first
