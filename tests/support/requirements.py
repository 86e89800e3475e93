"""What a test needs of the machine: a missing program or root fails it in CI and skips it elsewhere.

require("skopeo", "podman")
"""

import os

import pytest

from tests.support.programs import FROM_GO, find_program

IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}


def require(*names):
    """Skip the test, or fail it in CI, unless all these real programs can be run."""
    missing = sorted({name for name in names if find_program(name) is None})
    if missing:
        _absent(
            f"needs {', '.join(missing)}; as root, tests/support/install-programs installs it",
            always_skip=FROM_GO.issuperset(missing),
        )


def require_root():
    """Skip the test, or fail it in CI, unless root runs it."""
    if os.geteuid() != 0:
        _absent("needs root")


def _absent(reason, *, always_skip=False):
    if IN_CI and not always_skip:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
