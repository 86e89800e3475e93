"""Device classes: which DRA driver publishes which devices, and how a claim selects them.

Owns the names of classes, drivers and types, and the CEL expressions over them. Leaves out how
requests are made of them (:mod:`cdi.kube.claims`) and extended resources
(:mod:`cdi.kube.resources`).

Where a vendor's DRA driver exists, its names are used. For the other kinds of device no public
driver is known: the class is named after the CDI kind, ``dcu.hygon.com`` for ``hygon.com/dcu``, and
:mod:`cdi.kube.slices` publishes its devices under that driver name. NVIDIA's, AMD's and Intel's
drivers follow the same rule.

>>> NVIDIA_SHARED.expression
"device.driver == 'hami-core-gpu.project-hami.io' && \
device.attributes['hami-core-gpu.project-hami.io'].type == 'hami-gpu'"
"""

from collections.abc import Iterable
from dataclasses import dataclass

from cdi.names import split_kind

API_VERSION = "resource.k8s.io/v1"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceClass:
    """One class of devices: the driver that publishes them and the value of their type attribute."""

    name: str
    driver: str
    type: str

    @property
    def expression(self) -> str:
        """Return the CEL expression that selects the devices of this class."""
        driver = cel_string(self.driver)
        return f"device.driver == {driver} && {self.attribute('type')} == {cel_string(self.type)}"

    def attribute(self, name: str) -> str:
        """Return the CEL expression for an attribute of the driver's devices."""
        return f"device.attributes[{cel_string(self.driver)}].{name}"

    def capacity(self, name: str) -> str:
        """Return the CEL expression for a capacity of the driver's devices."""
        return f"device.capacity[{cel_string(self.driver)}].{name}"

    def to_object(self) -> dict[str, object]:
        """Return the DeviceClass object, which has no namespace."""
        return {
            "apiVersion": API_VERSION,
            "kind": "DeviceClass",
            "metadata": {"name": self.name},
            "spec": {"selectors": [cel_selector(self.expression)]},
        }


def class_of_kind(kind: str) -> DeviceClass:
    """Return the class of whole devices of a CDI kind: ``npu.ascend.com`` for ``ascend.com/npu``.

    Raises:
        CdiUsageError: it is not a valid kind.
    """
    vendor, class_ = split_kind(kind)
    name = f"{class_}.{vendor}".lower()
    return DeviceClass(name=name, driver=name, type=class_)


# NVIDIA's DRA driver publishes MIG devices under the driver of whole GPUs.
NVIDIA_MIG = DeviceClass(name="mig.nvidia.com", driver="gpu.nvidia.com", type="mig")
# HAMi's DRA drivers, which hand out parts of a device.
NVIDIA_SHARED = DeviceClass(
    name="hami-core-gpu.project-hami.io", driver="hami-core-gpu.project-hami.io", type="hami-gpu"
)
ASCEND_SHARED = DeviceClass(
    name="hami-vnpu-core.project-hami.io", driver="ascend.project-hami.io", type="HAMivNPUCore"
)


def cel_string(text: str) -> str:
    """Return a text as a CEL string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def cel_list(texts: Iterable[str]) -> str:
    """Return texts as a CEL list of string literals."""
    return f"[{', '.join(cel_string(text) for text in texts)}]"


def cel_selector(expression: str) -> dict[str, object]:
    """Return a device selector of one CEL expression."""
    return {"cel": {"expression": expression}}
