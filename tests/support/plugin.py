"""The ``real`` and ``root`` markers, and the logs of servers beside the tests that failed.

What a marker asks for and is not there skips the test, or fails it in CI (``requirements.py``).
The fixtures over real programs are in ``fixtures.py``.
"""

import pytest

from tests.support import servers
from tests.support.requirements import require, require_root

pytest_plugins = ["tests.support.fixtures"]


def pytest_runtest_setup(item):
    require(*(name for marker in item.iter_markers("real") for name in marker.args))
    if item.get_closest_marker("root"):
        require_root()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    if report.failed:
        report.sections += [(server.name, server.tail()) for server in servers.running]
    return report
