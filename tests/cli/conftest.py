import io
import sys
from types import SimpleNamespace

import pytest

from modelpack.cli._run import run
from tests.cdi.machines import nvidia
from tests.cdi.machines.build import build
from tests.support.cdicli import SMALLEST


@pytest.fixture
def call(capfd, monkeypatch, tmp_path):
    """Run a command line in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments, stdin=None):
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return invoke


@pytest.fixture
def smallest(tmp_path):
    path = tmp_path / "smallest.yaml"
    path.write_text(SMALLEST)
    return path


@pytest.fixture
def machine(tmp_path):
    """A recorded machine's tree."""
    return build(tmp_path / "machine", nvidia.TWO_H200)
