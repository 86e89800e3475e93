"""examples/container/Containerfile, step by step without containers: what its image would have.

Base images are pulled from where tests cannot reach, so the file's own instructions are read, and
what they copy and install is copied and installed here, apart from its dependencies.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "examples/container/Containerfile"


def instructions():
    """Return (keyword, argument) of each instruction."""
    lines = [line for line in FILE.read_text().splitlines() if line and not line.startswith("#")]
    return [(keyword, rest) for keyword, _, rest in (line.partition(" ") for line in lines)]


def given(keyword):
    return [rest for word, rest in instructions() if word == keyword]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment that the image has at /opt/modelpack, on this machine's dependencies."""
    directory = tmp_path_factory.mktemp("container")
    source = directory / "source"
    for copied in given("COPY"):
        *names, target = copied.split()
        if names[0].startswith("--from="):
            continue
        for name in names:
            place = source / target / ("" if target.endswith(name) else name)
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, place)
    home = directory / "opt/modelpack"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = ["wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={directory}", source]
    install = [f"--python={home}/bin/python3", "install", "--no-deps"]
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True, timeout=120)
    subprocess.run([*pip, *wheel], check=True, timeout=120)
    subprocess.run([*pip, *install, *directory.glob("*.whl")], check=True, timeout=120)
    # A directory named in a .pth file has no .pth files of its own: an editable install of this
    # checkout is not found there.
    packages = next(home.glob("lib/python3*/site-packages"))
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return home


def run(installed, tmp_path, *arguments):
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    return subprocess.run(
        [installed / "bin/modelpack", *map(str, arguments)],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_the_base_is_pinned_and_may_be_another():
    (base,) = given("ARG")
    assert re.fullmatch(r"PYTHON=[a-z.]+/library/python:3\.\d+-slim-[a-z]+", base)
    assert given("FROM") == ["${PYTHON} AS build", "${PYTHON}"]


def test_steps_are_programs_and_not_scripts():
    steps = [json.loads(step) for step in given("RUN")]
    assert [step[0].rsplit("/")[-1] for step in steps] == ["python3", "pip"]
    assert steps[-1][-1] == ".[node]"
    (entry,) = given("ENTRYPOINT")
    assert json.loads(entry) == ["/opt/modelpack/bin/modelpack"]


def test_the_installed_daemon_takes_its_smallest_configuration(installed, tmp_path):
    config = ROOT / "examples/systemd/modelpack-daemon.yaml"
    done = run(installed, tmp_path, "daemon", "--config", config, "--check")
    assert done.returncode == 0, done.stderr
    assert "registry.example/team/model:v1" in done.stdout


def test_nothing_of_the_package_is_missing(installed):
    packages = next(installed.glob("lib/python3*/site-packages"))
    for package in ("modelpack", "cdi"):
        wanted = {
            path.relative_to(ROOT)
            for path in (ROOT / package).rglob("*")
            if path.is_file() and path.suffix != ".pyc" and path.name != "README.md"
        }
        found = {path.relative_to(packages) for path in (packages / package).rglob("*")}
        assert wanted - found == set()
