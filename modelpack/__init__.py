"""Deliver AI models as chunked, verified OCI artifacts.

    import modelpack

    modelpack.push("model", "localhost:5000/team/model:v1")
    modelpack.pull("localhost:5000/team/model:v1", "copy")

The names below are loaded when they are first used, so ``import modelpack`` itself is cheap.
"""

from typing import TYPE_CHECKING, Any

from modelpack._version import __version__

if TYPE_CHECKING:
    from modelpack.api import copy, diff, inspect, pull, push, tags, verify, verify_reference
    from modelpack.errors import ModelpackError
    from modelpack.reference import parse_reference
    from modelpack.registry.options import ConnectionOptions

__all__ = [
    "ConnectionOptions",
    "ModelpackError",
    "__version__",
    "copy",
    "diff",
    "inspect",
    "parse_reference",
    "pull",
    "push",
    "tags",
    "verify",
    "verify_reference",
]

_HOMES = {
    "ConnectionOptions": "modelpack.registry.options",
    "ModelpackError": "modelpack.errors",
    "copy": "modelpack.api",
    "diff": "modelpack.api",
    "inspect": "modelpack.api",
    "parse_reference": "modelpack.reference",
    "pull": "modelpack.api",
    "push": "modelpack.api",
    "tags": "modelpack.api",
    "verify": "modelpack.api",
    "verify_reference": "modelpack.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'modelpack' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - keeps the import cheap

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
