"""Real programs run from the Debian tree, see the test's files, and say why they fail."""

import os
import shutil

import pytest

from tests.support import images, programs, requirements


@pytest.mark.parametrize(
    ("program", "arguments", "says"),
    [
        pytest.param("containerd", ["--version"], " 2.1.", id="containerd"),
        pytest.param("runc", ["--version"], "runc version 1.3", id="runc"),
        pytest.param("podman", ["--version"], "podman version 5.", id="podman"),
        pytest.param("skopeo", ["--version"], "skopeo version 1.2", id="skopeo"),
        pytest.param("oras", ["version"], "1.3", id="oras"),
        pytest.param("cosign", ["--help"], "verify-attestation", id="cosign"),
        pytest.param("crane", ["--help"], "manifest", id="crane"),
        pytest.param("nvidia-ctk", ["--version"], "version", id="nvidia-ctk"),
        pytest.param("kubectl", ["version", "--client"], "v1.36", id="kubectl"),
    ],
)
def test_versions_the_other_tests_rely_on(program, arguments, says):
    requirements.require(program)
    assert says in programs.run(program, *arguments).stdout


@pytest.mark.real("skopeo")
def test_a_program_of_the_tree_reads_and_writes_where_the_test_does(tmp_path):
    layout = images.write_image(tmp_path / "in", [{"file": b"content"}])
    copy = tmp_path / "out"
    programs.run("skopeo", "copy", f"oci:{layout}:{images.TAG}", f"dir:{copy}")
    layer = next(p for p in copy.iterdir() if p.stat().st_size > 5000)
    assert b"content" in layer.read_bytes()


@pytest.mark.real("skopeo")
def test_a_relative_path_means_the_callers_directory(tmp_path):
    images.write_image(tmp_path / "layout", [{"file": b"content"}])
    inspected = programs.run("skopeo", "inspect", f"oci:layout:{images.TAG}", cwd=tmp_path)
    assert '"Digest": "sha256:' in inspected.stdout


@pytest.mark.real("skopeo")
def test_the_machines_own_usr_is_untouched():
    before = os.stat("/usr/bin").st_ino
    programs.run("skopeo", "--version")
    assert os.stat("/usr/bin").st_ino == before


@pytest.mark.real("skopeo")
def test_a_failure_shows_what_the_program_said(tmp_path):
    with pytest.raises(programs.ProgramError, match=r"skopeo inspect[\s\S]*exit 1[\s\S]*no-such"):
        programs.run("skopeo", "inspect", f"oci:{tmp_path}/no-such:v1")


def test_a_program_on_path_runs_without_the_users_home():
    assert programs.run("sh", "-c", 'ls -A "$HOME"').stdout == ""


def test_what_is_not_there_is_not_found():
    assert programs.find_program("no-such-program") is None
    with pytest.raises(FileNotFoundError, match="install-programs"):
        programs.run("no-such-program")


def test_programs_of_the_tree_need_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert programs.find_program("skopeo") is None


@pytest.mark.parametrize(
    ("in_ci", "name", "outcome"),
    [
        pytest.param(True, "no-such-program", pytest.fail.Exception, id="CI fails"),
        pytest.param(False, "no-such-program", pytest.skip.Exception, id="elsewhere it skips"),
        pytest.param(True, "nvidia-ctk", pytest.skip.Exception, id="Go's are skipped in CI too"),
    ],
)
def test_a_missing_program(monkeypatch, tmp_path, in_ci, name, outcome):
    monkeypatch.setattr(requirements, "IN_CI", in_ci)
    monkeypatch.setattr(programs, "GO_BIN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(outcome, match=name):
        requirements.require(name)


@pytest.mark.root
def test_a_small_file_system_fills_up(small_filesystem):
    directory = small_filesystem(1 << 20)
    with pytest.raises(OSError, match="No space left"):
        (directory / "file").write_bytes(bytes(2 << 20))
    assert shutil.disk_usage(directory).total == 1 << 20


@pytest.mark.root
@pytest.mark.real("skopeo")
def test_a_program_of_the_tree_sees_a_small_file_system(small_filesystem, tmp_path):
    layout = images.write_image(tmp_path / "in", [{"file": bytes(2 << 20)}])
    full = programs.run(
        "skopeo",
        "copy",
        f"oci:{layout}:{images.TAG}",
        f"dir:{small_filesystem('1m')}/copy",
        check=False,
    )
    assert full.returncode != 0
    assert "no space left on device" in full.stderr
