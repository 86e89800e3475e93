"""The places where models can go: a node's containerd, or a directory.

Owns choosing one by the configuration. gRPC is loaded only when containerd is first talked to.

    node = open_node(config.runtime, config.network)
    node.check()
"""

from modelpack.errors import UsageError
from modelpack.prefetch.config import Network, RuntimeOptions
from modelpack.prefetch.node import Node
from modelpack.prefetch.nodes.containerd import ContainerdNode
from modelpack.prefetch.nodes.directory import DirectoryNode


def open_node(runtime: RuntimeOptions, network: Network) -> Node:
    """Return the place that a configuration names, without talking to it.

    Raises:
        UsageError: there is no such kind, or it needs a path.
    """
    if runtime.kind == ContainerdNode.kind:
        return ContainerdNode(runtime, network)
    if runtime.kind == DirectoryNode.kind:
        if runtime.path is None:
            raise UsageError("runtime: a directory needs a path")
        return DirectoryNode(
            runtime.path,
            network,
            host_root=runtime.host_root,
            page_cache=runtime.page_cache,
        )
    raise UsageError(
        f"runtime: kind {runtime.kind!r:.40} is neither {ContainerdNode.kind} nor "
        f"{DirectoryNode.kind}"
    )
