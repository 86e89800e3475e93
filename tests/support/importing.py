"""What the tests of imports into containerd share: models, options, and looking at the outcome.

with clean_node(containerd_node, "reuse") as node:
    import_model(reference, options(node))
    assert_mounts(node, reference, model)
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from modelpack.runtime.options import ImportOptions
from tests.support.models import one_shard, random_bytes, write_files
from tests.support.node import Node
from tests.support.nodestate import assert_nothing_unfinished
from tests.support.registries import DockerRegistry
from tests.support.samplemodel import digests_of

MIB = 1024 * 1024


def build_shards(root: Path, *, seed: int = 1, shards: int = 3, megabytes: int = 10) -> Path:
    """Write a model of a few large layers and one of small files; return ``root``."""
    return write_files(
        root,
        {
            f"w{number}.safetensors": one_shard(
                range(number * 10, number * 10 + megabytes), size=MIB, seed=seed
            )
            for number in range(shards)
        }
        | {"config.json": b"{}", "deep/er/vocab.txt": random_bytes(1000, seed)},
    )


def reference_for(registry: DockerRegistry, group: str, test: str) -> str:
    """Return a reference that belongs to one test of a group."""
    name = re.sub(r"[^a-z0-9]+", "-", test.lower()).strip("-")
    return f"{registry.host}/{group}/{name}:v1"


@contextlib.contextmanager
def clean_node(node: Node, group: str) -> Iterator[Node]:
    """Lend a node; at the end remove the group's images and prove that nothing else is left."""
    yield node
    for image in node.cri.images("ListImages").images:
        if any(f"/{group}/" in name for name in [*image.repo_tags, *image.repo_digests]):
            node.remove_image(image.id)
    assert_nothing_unfinished(node)


def into(node: Node) -> tuple[str | Path, ...]:
    """Return the options of ``modelpack pull`` for a node."""
    return ("--into", "containerd", "--address", node.socket)


def options(node: Node, **others) -> ImportOptions:
    """Return the library's options for a node."""
    return ImportOptions(address=node.socket, **others)


def assert_mounts(node: Node, image: str, model: Path) -> None:
    """Prove that a container sees exactly a model's files in the image mounted as a volume."""
    find = ["find", "/models", "-type", "f", "-exec", "sha256sum", "{}", ";"]
    seen = {}
    for line in node.run_with_image_volume(image, "/models", find).stdout.splitlines():
        digest, path = line.split(maxsplit=1)
        seen[path.removeprefix("/models/")] = digest
    files = {path: digest for path, digest in seen.items() if not path.startswith(".modelpack/")}
    assert files == {path: digest for path, (_, digest) in digests_of(model).items()}


def blob_requests(registry: DockerRegistry) -> list[str]:
    """Return the registry's answers to requests for blobs."""
    return [line for line in registry.requests() if " GET " in line and "/blobs/" in line]


def blob_bytes_sent(registry: DockerRegistry, reference: str) -> int:
    """Return how many bytes of a repository's blobs a registry has sent."""
    repository = reference.partition("/")[2].rpartition(":")[0]
    return sum(
        int(line.rpartition("sent=")[2])
        for line in blob_requests(registry)
        if f"/{repository}/blobs/" in line
    )
