"""What most tests against real programs need; a module may have its own in place of any of them.

``node`` and ``reference`` are for modules with a ``GROUP``, the name of their repositories: what they
leave on the node that all share is told by it, and removed.
"""

import pytest

from tests.support.command import Command
from tests.support.importing import clean_node, reference_for


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def command(tmp_path):
    return Command(tmp_path / "home")


@pytest.fixture
def reference(docker_registry, request):
    return reference_for(docker_registry, request.module.GROUP, request.node.name)


@pytest.fixture
def node(containerd_node, request):
    with clean_node(containerd_node, request.module.GROUP) as node:
        yield node
