"""New Pods that mount a model image and ask for devices, in each of the ways a cluster may know.

Owns the Pod with its image volume, and the objects beside it. Leaves out what a reference means:
it is text for the runtime.

The three ways: DRA claims (a ResourceClaimTemplate and its DeviceClass beside the Pod), the extended
resources of device plugins, and CDI names in annotations, which a runtime reads without anything
that schedules.

>>> made = render("registry.example/models/m:1", Ask(device="nvidia.com/gpu"), Form.DEVICE_PLUGIN)
>>> made.objects[0]["spec"]["containers"][0]["resources"]
{'limits': {'nvidia.com/gpu': '1'}}
>>> made.objects[0]["spec"]["volumes"][0]["image"]["reference"]
'registry.example/models/m:1'
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from cdi.annotations import annotate
from cdi.errors import CdiUsageError
from cdi.kube._names import fit_label, require_label, require_subdomain
from cdi.kube.claims import WHOLE, Need, claim_template
from cdi.kube.pods import Json
from cdi.kube.quantity import memory_text
from cdi.kube.resources import family_for
from cdi.names import QualifiedName, is_qualified
from cdi.shares import share_device

# An image that is there to look at the volume with; `kubectl exec` reaches its shell.
DEFAULT_IMAGE = "docker.io/library/busybox:stable"
_IDLE = ("sleep", "infinity")
DEFAULT_MOUNT = "/models"
# The annotation's plugin part: who asks.
PLUGIN = "modelpack"
MAX_COUNT = 1024

_PATH = re.compile(r"/[^:\x00-\x1f]+")
_VOLUME = "model"


class Form(StrEnum):
    """How the Pod asks for its devices."""

    DRA = "dra"
    DEVICE_PLUGIN = "device-plugin"
    CDI_ANNOTATION = "cdi-annotation"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """The devices to ask for: a CDI kind, a resource name or one qualified CDI device.

    ``memory`` (bytes) and ``cores`` (percent) are per device and ask for a part of each.
    """

    device: str
    count: int = 1
    memory: int | None = None
    cores: int | None = None

    @property
    def shared(self) -> bool:
        """Tell whether a part of each device is asked for."""
        return self.memory is not None or self.cores is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class PodOptions:
    """How the Pod is to look; empty texts stand for defaults.

    ``claim`` names the share of a device that ``modelpack cdi share`` makes, where the Pod's
    annotation asks for one.
    """

    name: str = ""
    namespace: str = ""
    image: str = ""
    mount: str = DEFAULT_MOUNT
    claim: str = ""
    with_class: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """The objects in the order in which a cluster needs them, and what else has to be done."""

    objects: tuple[Json, ...]
    notes: tuple[str, ...] = field(default=())


def render(reference: str, ask: Ask, form: Form, options: PodOptions | None = None) -> Rendered:
    """Return a Pod that mounts an image and asks for devices, and the objects it needs.

    Deterministic. The reference is not looked at beyond making a name of it.

    Raises:
        CdiUsageError: an amount or name is not valid, or the device cannot be asked for this way.
    """
    options = options or PodOptions()
    _check(reference, ask, options)
    name = require_label("name", options.name) if options.name else name_of(reference)
    match form:
        case Form.DRA:
            return _with_claim(reference, ask, name, options)
        case Form.DEVICE_PLUGIN:
            limits = _limits(ask)
            pod = _pod(reference, name, options, resources={"limits": limits})
            return Rendered(objects=(pod,))
    return _with_annotation(reference, ask, name, options)


def name_of(reference: str) -> str:
    """Return a Pod's name for a reference: its last part, without tag and digest."""
    last = reference.rstrip("/").rpartition("/")[2]
    return fit_label(last.partition("@")[0].partition(":")[0])


def _check(reference: str, ask: Ask, options: PodOptions) -> None:
    if not reference or not reference.isprintable() or " " in reference:
        raise CdiUsageError(f"{reference[:80]!a} is no image reference")
    if not 1 <= ask.count <= MAX_COUNT:
        raise CdiUsageError(f"count {ask.count} is outside 1 to {MAX_COUNT}")
    if ask.cores is not None and not 0 <= ask.cores <= WHOLE:
        raise CdiUsageError(f"cores {ask.cores} is outside 0 to {WHOLE} percent")
    if ask.memory is not None and ask.memory < 1:
        raise CdiUsageError("memory must be more than nothing")
    if not _PATH.fullmatch(options.mount):
        raise CdiUsageError(f"mount {options.mount[:80]!a} is no absolute path without a colon")
    if options.namespace:
        require_label("namespace", options.namespace)


def _with_claim(reference: str, ask: Ask, name: str, options: PodOptions) -> Rendered:
    need = Need(
        family=family_for(_kind(ask, Form.DRA), shared=ask.shared),
        count=ask.count,
        memory="" if ask.memory is None else memory_text(ask.memory),
        cores=ask.cores,
    )
    claim = need.family.request
    template_name = require_subdomain("name", fit_label(f"{name}-{claim}"))
    template = claim_template(template_name, options.namespace, (need,))
    pod = _pod(
        reference,
        name,
        options,
        resources={"claims": [{"name": claim}]},
        claims=[{"name": claim, "resourceClaimTemplateName": template_name}],
    )
    classes = (need.device_class.to_object(),) if options.with_class else ()
    return Rendered(objects=(*classes, template, pod))


def _kind(ask: Ask, form: Form) -> str:
    if is_qualified(ask.device):
        kind = ask.device.partition("=")[0]
        raise CdiUsageError(
            f"{ask.device} is one device, and as {form} the cluster chooses it; name {kind}"
        )
    return ask.device


def _limits(ask: Ask) -> dict[str, str]:
    family = family_for(_kind(ask, Form.DEVICE_PLUGIN), shared=ask.shared, exact=True)
    limits = {family.count: str(ask.count)}
    if ask.memory is not None:
        if not family.memory:
            raise CdiUsageError(f"{family.count} has no resource for memory; leave it out")
        units, rest = divmod(ask.memory, family.memory_unit)
        if rest:
            unit = memory_text(family.memory_unit)
            raise CdiUsageError(f"memory {memory_text(ask.memory)} is no multiple of {unit}")
        limits[family.memory] = str(units)
    if ask.cores is not None:
        if not family.cores:
            raise CdiUsageError(f"{family.count} has no resource for cores; leave them out")
        limits[family.cores] = str(-(-ask.cores * family.cores_whole // WHOLE))
    return limits


def _with_annotation(reference: str, ask: Ask, name: str, options: PodOptions) -> Rendered:
    devices = _devices(ask)
    notes: list[str] = []
    if ask.shared:
        claim = options.claim or name
        notes.append(f"run on the node first: {_share_command(claim, devices, ask)}")
        devices = [share_device(claim, devices)]
    annotations = annotate({}, plugin=PLUGIN, device_id=name, devices=devices)
    pod = _pod(reference, name, options, annotations=annotations)
    notes.append("nothing schedules by annotations; put the Pod on its node with nodeName")
    return Rendered(objects=(pod,), notes=tuple(notes))


def _devices(ask: Ask) -> list[str]:
    """Return the CDI names: the one asked for, or the first ones of the kind."""
    if is_qualified(ask.device):
        if ask.count > 1:
            raise CdiUsageError(f"{ask.device} is one device; name its kind to ask for {ask.count}")
        return [ask.device]
    kind = family_for(ask.device, shared=False).kind
    return [str(QualifiedName.parse(f"{kind}={i}")) for i in range(ask.count)]


def _share_command(claim: str, devices: Sequence[str], ask: Ask) -> str:
    words = ["modelpack cdi share", f"--claim {claim}", *(f"--device {name}" for name in devices)]
    words += [] if ask.memory is None else [f"--memory {memory_text(ask.memory)}"]
    words += [] if ask.cores is None else [f"--cores {ask.cores}"]
    return " ".join(words)


def _pod(
    reference: str,
    name: str,
    options: PodOptions,
    *,
    resources: Json | None = None,
    claims: Sequence[Json] = (),
    annotations: dict[str, str] | None = None,
) -> Json:
    metadata: Json = {"name": name}
    metadata |= {"namespace": options.namespace} if options.namespace else {}
    metadata |= {"annotations": annotations} if annotations else {}
    container: Json = {"name": "main", "image": options.image or DEFAULT_IMAGE}
    container |= {} if options.image else {"command": list(_IDLE)}
    container |= {"resources": resources} if resources else {}
    container["volumeMounts"] = [{"name": _VOLUME, "mountPath": options.mount, "readOnly": True}]
    image: Json = {"reference": reference, "pullPolicy": "IfNotPresent"}
    spec: Json = {"containers": [container], "volumes": [{"name": _VOLUME, "image": image}]}
    spec |= {"resourceClaims": list(claims)} if claims else {}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
