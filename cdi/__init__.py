"""CDI, the Container Device Interface, version 1.1.0: a strict library for Python.

Reads, checks, writes and injects the device specs that containerd, CRI-O, Podman and Docker read.
It depends on PyYAML and the standard library only; text formats and files are imported when they
are first used, so ``import cdi`` is cheap.

>>> import cdi
>>> node = cdi.DeviceNode(path="/dev/nvidia0", type="c", major=195, minor=0)
>>> gpu = cdi.Device(name="0", container_edits=cdi.ContainerEdits(device_nodes=(node,)))
>>> spec = cdi.Spec(cdi_version="0.5.0", kind="nvidia.com/gpu", devices=(gpu,))
>>> print(spec.qualified("0"))
nvidia.com/gpu=0
"""

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

__all__ = [
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
]
