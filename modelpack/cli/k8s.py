"""``modelpack k8s``: manifests for a cluster, made without one.

Owns the options, and the joining of files and text. Leaves out the objects, which are
``cdi.kube``'s.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from modelpack.cli._group import Group
from modelpack.cli._output import print_json, print_note, print_text
from modelpack.cli.cdi import _source
from modelpack.cli.cdi._source import STANDARD_INPUT, Source, read_input, say
from modelpack.cli.cdi.generate import write_text

if TYPE_CHECKING:
    from cdi.kube.claims import CardSizes

_DEVICES = "The devices"
_POD = "The Pod"
_OUTPUT = "Output"

app = typer.Typer(
    cls=Group,
    help="Kubernetes manifests for models and devices.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Output = Annotated[
    str,
    typer.Option(
        "--output", "-o", metavar="FILE|-", help="Where it goes.", rich_help_panel=_OUTPUT
    ),
]
Format = Annotated[
    _source.Format,
    typer.Option(
        "--format", help="The form; several objects are a List in JSON.", rich_help_panel=_OUTPUT
    ),
]
FormName = Literal["dra", "device-plugin", "cdi-annotation"]


@app.command("render")
def render_command(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="The image to mount, as the runtime pulls it.")
    ],
    *,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="DEVICE",
            help="A kind such as nvidia.com/gpu or a resource such as huawei.com/Ascend910B3; for "
            "a CDI annotation also one device, such as nvidia.com/gpu=0.",
            rich_help_panel=_DEVICES,
        ),
    ],
    form: Annotated[
        FormName,
        typer.Option(
            "--as",
            help="Ask by DRA claims, by a device plugin's resources, or by CDI annotation.",
            rich_help_panel=_DEVICES,
        ),
    ] = "dra",
    count: Annotated[
        int, typer.Option("--count", min=1, help="How many.", rich_help_panel=_DEVICES)
    ] = 1,
    memory: Annotated[
        str,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Only this much memory of each, such as 24Gi.",
            rich_help_panel=_DEVICES,
        ),
    ] = "",
    cores: Annotated[
        int | None,
        typer.Option(
            "--cores",
            metavar="PERCENT",
            min=0,
            max=100,
            help="Only this much of each one's cores.",
            rich_help_panel=_DEVICES,
        ),
    ] = None,
    image: Annotated[
        str,
        typer.Option(
            "--image",
            help="The container's image (default: a busybox that sleeps).",
            rich_help_panel=_POD,
        ),
    ] = "",
    mount: Annotated[
        str,
        typer.Option(
            "--mount", metavar="PATH", help="Where the model appears.", rich_help_panel=_POD
        ),
    ] = "/models",
    name: Annotated[
        str,
        typer.Option(
            "--name", help="The Pod's name (default: from the reference).", rich_help_panel=_POD
        ),
    ] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="The namespace.", rich_help_panel=_POD)
    ] = "",
    claim: Annotated[
        str,
        typer.Option(
            "--claim",
            metavar="ID",
            help="The share that 'cdi share' makes, for a part by CDI annotation "
            "(default: the Pod's name).",
            rich_help_panel=_POD,
        ),
    ] = "",
    no_device_class: Annotated[
        bool,
        typer.Option(
            "--no-device-class",
            help="Leave out the DeviceClass, where the driver brings it.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    format_: Format = "yaml",
    output: Output = STANDARD_INPUT,
) -> None:
    """Print a Pod that mounts a model image and asks for devices, and the objects it needs."""
    from cdi.inventory_quantity import parse_quantity
    from cdi.kube.render import Ask, Form, PodOptions, render

    ask = Ask(
        device=device,
        count=count,
        memory=parse_quantity(memory) if memory else None,
        cores=cores,
    )
    options = PodOptions(
        name=name,
        namespace=namespace,
        image=image,
        mount=mount,
        claim=claim,
        with_class=not no_device_class,
    )
    made = render(reference, ask, Form(form), options)
    _put(made.objects, format_, output)
    say(made.notes)


@app.command("convert")
def convert_command(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Manifests, - for standard input.")
    ],
    *,
    inventory: Annotated[
        list[str] | None,
        typer.Option(
            "--inventory",
            metavar="FILE",
            help="The cards there are, to turn percentages of memory into amounts; repeatable.",
        ),
    ] = None,
    card_memory: Annotated[
        str,
        typer.Option(
            "--card-memory", metavar="SIZE", help="What every card has, instead of inventories."
        ),
    ] = "",
    device_classes: Annotated[
        bool,
        typer.Option(
            "--device-classes",
            help="Print the DeviceClasses too, where no driver brings them.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    output: Output = STANDARD_INPUT,
) -> None:
    """Turn extended resources (vendors', HAMi's, Volcano's) in manifests into DRA claims.

    Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs and lists of them, in
    one or more documents. Everything else stays as it is; converting twice changes nothing.
    """
    from cdi.kube.convert import Conversion, convert_text
    from cdi.kube.manifests import InvalidManifestError, dump_each, join

    sizes = _sizes(inventory or [], card_memory)
    texts: list[str] = []
    reports: list[Conversion] = []
    notes: list[str] = []
    for name in files:
        data, source = read_input(name)
        try:
            text, report = convert_text(data.decode("utf-8"), sizes)
        except (InvalidManifestError, UnicodeDecodeError) as error:
            reason = str(error) if isinstance(error, InvalidManifestError) else "is not UTF-8"
            raise InvalidManifestError(f"{source}: {reason}") from error
        texts.append(text)
        reports.append(report)
        notes += [f"{source}: {note}" for note in report.notes]
    if device_classes:
        classes = {one.name: one for report in reports for one in report.classes}
        texts = [*dump_each(classes[name].to_object() for name in sorted(classes)), *texts]
    _write(texts[0] if len(texts) == 1 else join(texts), output)
    say(notes)
    changed = sum(report.changed for report in reports)
    print_note(f"{changed} object{'s' * (changed != 1)} converted")


@app.command("resourceslice")
def resourceslice_command(
    *,
    vendor: _source.Vendors = None,
    inventory: _source.InventoryFile = "",
    root: _source.Root = Path("/"),
    node: Annotated[
        str, typer.Option("--node", help="The node's name (default: the inventory's).")
    ] = "",
    generation: Annotated[
        int, typer.Option("--generation", min=0, help="The pool's generation; raise it on change.")
    ] = 1,
    shared: Annotated[
        bool,
        typer.Option("--shared", help="Publish devices whose memory and cores are handed out."),
    ] = False,
    format_: Format = "yaml",
    output: Output = STANDARD_INPUT,
) -> None:
    """Print an inventory, or this machine's devices, as ResourceSlices for the DRA scheduler."""
    from dataclasses import replace

    from cdi.errors import CdiNotFoundError
    from cdi.kube.slices import resource_slices

    found = Source(vendors=vendor or (), inventory=inventory, root=root).read()
    if vendor:
        wanted = {name.value for name in vendor}
        found = replace(found, devices=tuple(d for d in found.devices if d.vendor.value in wanted))
    made = resource_slices(found, node=node, generation=generation, shared=shared)
    if not made:
        raise CdiNotFoundError("the inventory has no devices of these vendors to publish")
    _put(made, format_, output)


def _sizes(inventories: Sequence[str], card_memory: str) -> "CardSizes":
    """Return what is known of the cards' memory, by kind."""
    from cdi.errors import CdiUsageError
    from cdi.inventory_quantity import parse_quantity
    from cdi.kube.claims import CardSizes
    from cdi.kube.resources import FAMILIES
    from cdi.vendors import MODULES

    if card_memory and inventories:
        raise CdiUsageError("--card-memory and --inventory both say what cards have; give one")
    if card_memory:
        size = parse_quantity(card_memory)
        return CardSizes(by_kind={family.kind: (size,) for family in FAMILIES})
    found: dict[str, list[int]] = {}
    for name in inventories:
        for device in _source.read_inventory(name).devices:
            kind = MODULES[device.vendor].support.kinds[device.type]
            if device.memory and device.partitions is None:
                found.setdefault(kind, []).append(device.memory)
    return CardSizes(by_kind={kind: tuple(sizes) for kind, sizes in found.items()})


def _put(objects: Sequence[object], form: _source.Format, output: str) -> None:
    from json import dumps

    from cdi.kube.manifests import dump

    if form == "yaml":
        _write(dump(objects), output)
        return
    whole = (
        objects[0] if len(objects) == 1 else {"apiVersion": "v1", "kind": "List", "items": objects}
    )
    if output == STANDARD_INPUT:
        print_json(whole)
    else:
        _write(dumps(whole, ensure_ascii=False, indent=2) + "\n", output)


def _write(text: str, output: str) -> None:
    if output == STANDARD_INPUT:
        print_text(text)
    else:
        write_text(text, Path(output))
