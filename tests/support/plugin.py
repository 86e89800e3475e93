"""The ``real`` and ``root`` markers: a missing program fails in CI and is a plain skip elsewhere."""

import os
import shutil
from pathlib import Path

import pytest

IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}


def pytest_runtest_setup(item):
    missing = []
    for marker in item.iter_markers("real"):
        missing += [name for name in marker.args if find_program(name) is None]
    if missing:
        _absent(f"needs {', '.join(sorted(set(missing)))}; tests/support/install-programs installs it")
    if item.get_closest_marker("root") and os.geteuid() != 0:
        _absent("needs root")


def _absent(reason):
    if IN_CI:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def find_program(name):
    """Return the path of a real program, on PATH or in the unpacked Debian tree, or None."""
    found = shutil.which(name)
    return Path(found) if found else None
