"""CDI, the Container Device Interface, version 1.1.0: a strict library for Python.

Reads, checks, writes and injects the device specs that containerd, CRI-O, Podman and Docker read.
It depends on PyYAML and the standard library only. Whatever needs text formats or files is imported
when it is first used, so ``import cdi`` is cheap.

>>> import cdi
>>> node = cdi.DeviceNode(path="/dev/nvidia0", type="c", major=195, minor=0)
>>> gpu = cdi.Device(name="0", container_edits=cdi.ContainerEdits(device_nodes=(node,)))
>>> spec = cdi.with_minimum_version(cdi.Spec(cdi_version="", kind="nvidia.com/gpu", devices=(gpu,)))
>>> cdi.check(spec.to_json())
()
>>> print(cdi.to_yaml(spec), end="")
cdiVersion: "0.5.0"
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      type: c
      major: 195
      minor: 0
>>> cdi.parse_spec(cdi.to_yaml(spec)) == spec
True
>>> cdi.parse_spec('{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": 0}]}')
Traceback (most recent call last):
cdi.errors.InvalidSpecError: devices[0].containerEdits: is required (and 1 more fault)

Installed specs are read with ``cdi.Cache.load()``, whose ``names``, ``conflicts`` and ``inject``
say and do what a runtime would; ``cdi.write_spec`` installs one atomically; :mod:`cdi.lint` says
what is wrong with a node's directories.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from cdi.errors import CdiError, Fault, InvalidSpecError
from cdi.names import QualifiedName
from cdi.spec import (
    ContainerEdits,
    Device,
    DeviceNode,
    Hook,
    IntelRdt,
    Mount,
    NetDevice,
    Spec,
)

if TYPE_CHECKING:
    from cdi.cache import Cache
    from cdi.edits import apply_edits
    from cdi.emit import to_json_text, to_yaml
    from cdi.files import read_spec, spec_file_name, write_spec
    from cdi.parse import parse_spec
    from cdi.validate import check, require_valid
    from cdi.version import minimum_version, with_minimum_version

__all__ = [
    "Cache",
    "CdiError",
    "ContainerEdits",
    "Device",
    "DeviceNode",
    "Fault",
    "Hook",
    "IntelRdt",
    "InvalidSpecError",
    "Mount",
    "NetDevice",
    "QualifiedName",
    "Spec",
    "apply_edits",
    "check",
    "minimum_version",
    "parse_spec",
    "read_spec",
    "require_valid",
    "spec_file_name",
    "to_json_text",
    "to_yaml",
    "with_minimum_version",
    "write_spec",
]

# Where each name comes from that is imported on first use.
_LAZY = {
    "Cache": "cdi.cache",
    "apply_edits": "cdi.edits",
    "check": "cdi.validate",
    "minimum_version": "cdi.version",
    "parse_spec": "cdi.parse",
    "read_spec": "cdi.files",
    "require_valid": "cdi.validate",
    "spec_file_name": "cdi.files",
    "to_json_text": "cdi.emit",
    "to_yaml": "cdi.emit",
    "with_minimum_version": "cdi.version",
    "write_spec": "cdi.files",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'cdi' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
