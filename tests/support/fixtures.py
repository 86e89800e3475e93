"""The fixtures over real programs. What is not there skips the test, or fails it in CI.

Each server has ``host`` ("127.0.0.1:PORT"), ``url``, ``logs()``, ``stop()``, ``start()``,
``pause()`` and ``resume()``, listens on a port of its own, and ends with its fixture. Logs and
data lie in pytest's temporary directories, of which the last runs' are kept.
"""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import PrivateCA
from tests.support.nginx import Nginx
from tests.support.programs import Podman
from tests.support.registries import CraneRegistry, DockerRegistry
from tests.support.requirements import require, require_root
from tests.support.tokens import TokenServer

if TYPE_CHECKING:
    from tests.support.browser import Browser
    from tests.support.node import Node
    from tests.support.statuspage import StatusPage

TOKEN_SECONDS = 5  # short enough to expire within a slow pull


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory) -> Iterator[DockerRegistry]:
    """One plain registry for the whole run; tests use repositories of their own in it."""
    require("docker-registry")
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def start_registry(tmp_path_factory) -> Iterator[Callable[..., DockerRegistry]]:
    """A function that starts a registry with the options of :class:`DockerRegistry`."""
    require("docker-registry")
    with contextlib.ExitStack() as started:
        yield lambda **options: started.enter_context(
            DockerRegistry(tmp_path_factory.mktemp("registry"), **options)
        )


@pytest.fixture
def crane_registry(tmp_path_factory) -> Iterator[CraneRegistry]:
    """An empty registry of another make than all the others."""
    require("crane")
    with CraneRegistry(tmp_path_factory.mktemp("crane")) as registry:
        yield registry


@pytest.fixture
def basic_auth_registry(start_registry) -> DockerRegistry:
    """A registry for the one user of ``registries.USERNAME`` and ``PASSWORD``."""
    return start_registry(auth="basic")


@pytest.fixture
def start_token_server(tmp_path_factory) -> Iterator[Callable[..., TokenServer]]:
    """A function that starts a token server with the options of :class:`TokenServer`."""
    with contextlib.ExitStack() as started:
        yield lambda **options: started.enter_context(
            TokenServer(tmp_path_factory.mktemp("tokens"), **options)
        )


@pytest.fixture
def token_server(start_token_server) -> TokenServer:
    """A token server that asks for no credentials and whose tokens live 5 seconds."""
    return start_token_server(lifetime=TOKEN_SECONDS)


@pytest.fixture
def token_registry(start_registry, token_server) -> DockerRegistry:
    """A registry that wants a token of ``token_server``."""
    return start_registry(auth=token_server)


@pytest.fixture(scope="session")
def private_ca(tmp_path_factory) -> PrivateCA:
    """A certificate authority that nothing trusts; ``private_ca.file`` is its certificate."""
    return PrivateCA(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def tls_registry(start_registry, private_ca) -> DockerRegistry:
    """A registry that speaks TLS with a certificate of ``private_ca``."""
    return start_registry(tls=private_ca)


@pytest.fixture
def start_nginx(tmp_path_factory) -> Iterator[Callable[..., Nginx]]:
    """A function that starts nginx with the server pieces and options of :class:`Nginx`."""
    require("nginx")
    with contextlib.ExitStack() as started:
        yield lambda *server, **options: started.enter_context(
            Nginx(tmp_path_factory.mktemp("nginx"), *server, **options)
        )


@pytest.fixture(scope="session")
def containerd_node(tmp_path_factory, docker_registry) -> "Iterator[Node]":
    """One containerd for the whole run; a test that breaks it starts one of its own."""
    with _node(tmp_path_factory.mktemp("node"), docker_registry) as node:
        yield node


@pytest.fixture
def start_node(tmp_path_factory, docker_registry) -> "Iterator[Callable[..., Node]]":
    """A function that starts a node of the test's own, in ``directory`` if that matters."""
    with contextlib.ExitStack() as started:
        yield lambda directory=None: started.enter_context(
            _node(directory or tmp_path_factory.mktemp("node"), docker_registry)
        )


def _node(directory, registry):
    require_root()
    require("containerd", "runc", "busybox", "skopeo")
    from tests.support.node import Node  # gRPC is loaded by the tests that talk it, and no others

    return Node(directory, registry)


@pytest.fixture
def podman(tmp_path) -> Podman:
    """Podman with an empty store of its own."""
    require("podman")
    return Podman(tmp_path / "podman")


@pytest.fixture
def small_filesystem(tmp_path_factory) -> Iterator[Callable[[int | str], Path]]:
    """A function that mounts an empty file system of so many bytes (or "8m") and returns it.

    It is a tmpfs: a write beyond its size fails with ENOSPC at once. Needs root.
    """
    require_root()
    mounted = []

    def mount(size: int | str) -> Path:
        directory = tmp_path_factory.mktemp("small")
        options = f"size={size},mode=0755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)
        mounted.append(directory)
        return directory

    yield mount
    for directory in mounted:
        # Lazily, because a test may have left a process behind that still sits in it.
        subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """One browser for all tests of this process; each opens what it needs."""
    from tests.support.browser import PROGRAM, Browser

    require(PROGRAM)
    with Browser() as browser:
        yield browser


@pytest.fixture
def page(browser, tmp_path) -> Iterator["StatusPage"]:
    """The status page of a daemon; nothing may have been complained about in the end."""
    from tests.support.statuspage import StatusPage
    from tests.support.webdaemon import Daemon

    browser.messages.clear()
    browser.look()
    daemon = Daemon(tmp_path)
    with daemon.serve() as endpoints:
        yield StatusPage(browser, endpoints.url, daemon)
        browser.open("about:blank")
    assert browser.messages == []
