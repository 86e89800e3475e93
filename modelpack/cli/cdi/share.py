"""``modelpack cdi share``: parts of cards for one claim."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelpack.cli._output import print_json, print_note, print_text
from modelpack.cli.cdi import _source
from modelpack.cli.cdi._columns import columns
from modelpack.cli.cdi._source import Source, say
from modelpack.cli.cdi.specs import JsonOption, load_cache, resolving

if TYPE_CHECKING:
    from cdi.cache import Cache
    from cdi.inventory import Inventory
    from cdi.shares.model import Card, Share
    from cdi.shares.store import Amount, ShareStore

_STATE = Path("/var/lib/modelpack/cdi")
_PARTS = "The parts"


def share_command(
    *,
    claim: Annotated[str, typer.Option("--claim", metavar="ID", help="Whose share it is.")] = "",
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="DEVICE",
            help="A card, such as nvidia.com/gpu=0; repeatable.",
            rich_help_panel=_PARTS,
        ),
    ] = None,
    memory: Annotated[
        list[str] | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Memory of each card, such as 8Gi; or once for each --device.",
            rich_help_panel=_PARTS,
        ),
    ] = None,
    cores: Annotated[
        list[int] | None,
        typer.Option(
            "--cores",
            metavar="PERCENT",
            help="Cores of each card; or once for each --device (default: no limit).",
            rich_help_panel=_PARTS,
        ),
    ] = None,
    oversubscribe: Annotated[
        bool,
        typer.Option(
            "--oversubscribe", help="Hand out more than a card has.", rich_help_panel=_PARTS
        ),
    ] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the claim's share back.")] = False,
    list_: Annotated[
        bool,
        typer.Option("--list", help="List all shares, and renew specs that a reboot removed."),
    ] = False,
    inventory: _source.InventoryFile = "",
    root: _source.Root = Path("/"),
    card_memory: Annotated[
        str,
        typer.Option(
            "--card-memory", metavar="SIZE", help="What each card has, where nothing says so."
        ),
    ] = "",
    spec_dir: _source.SpecDirs = None,
    state: Annotated[
        Path, typer.Option("--state", metavar="DIR", help="Where the ledger is.")
    ] = _STATE,
    hook_path: Annotated[
        Path,
        typer.Option("--hook-path", metavar="DIR", help="Where HAMi is installed on the node."),
    ] = Path("/usr/local"),
    json: JsonOption = False,
) -> None:
    """Hand a claim a part of one or more cards, as one CDI device of its own.

    HAMi's library in the container enforces it. What each card has handed out is kept in a ledger,
    so that it never exceeds the card; exit 8 when it would. The spec goes to the last --spec-dir.
    """
    from cdi.cache import default_directories
    from cdi.errors import CdiUsageError
    from cdi.shares.store import ShareStore

    directories = spec_dir or list(default_directories())
    store = ShareStore(
        state=state, spec_dir=directories[-1].absolute(), hook_path=str(hook_path.absolute())
    )
    if list_:
        if remove or claim or device:
            raise CdiUsageError("--list stands alone")
        _list(store, load_cache(directories), json=json)
        return
    if not claim:
        raise CdiUsageError("name the claim with --claim")
    if remove:
        if device or memory or cores:
            raise CdiUsageError("--remove takes only --claim")
        share = store.remove(claim, load_cache(directories))
        _print(share, "removed", json=json)
        return
    amounts = _amounts(device or [], memory or [], cores or [])
    source = Source(inventory=inventory, root=root)
    with resolving(directories) as cache:
        cards = _cards(list(amounts), cache, source, card_memory, store)
        granted = store.add(
            claim,
            cards,
            [amounts[card.device] for card in cards],
            cache,
            oversubscribe=oversubscribe,
        )
    _print(granted.share, "new" if granted.is_new else "unchanged", json=json)
    say(granted.notes)


def _amounts(devices: list[str], memory: list[str], cores: list[int]) -> dict[str, "Amount"]:
    """Return what is asked of each device; one amount stands for all devices."""
    from cdi.errors import CdiUsageError
    from cdi.inventory_quantity import parse_quantity
    from cdi.shares.store import Amount

    if not devices:
        raise CdiUsageError("name at least one card with --device")
    if not memory:
        raise CdiUsageError("say how much of each card with --memory")
    if len(set(devices)) < len(devices):
        raise CdiUsageError("a --device is named twice")
    for option, given in (("--memory", len(memory)), ("--cores", len(cores))):
        if given not in (0, 1, len(devices)):
            raise CdiUsageError(
                f"{option} is given {given} times for {len(devices)} devices; once or once for each"
            )
    sizes = [parse_quantity(text) for text in memory]
    sizes *= len(devices) if len(sizes) == 1 else 1
    percents = cores or [0]
    percents = percents * len(devices) if len(percents) == 1 else percents
    return {
        device: Amount(memory=size, cores=percent)
        for device, size, percent in zip(devices, sizes, percents, strict=True)
    }


def _cards(
    devices: list[str], cache: "Cache", source: Source, card_memory: str, store: "ShareStore"
) -> tuple["Card", ...]:
    from cdi.inventory_quantity import parse_quantity
    from cdi.shares.cards import find_cards

    stated = parse_quantity(card_memory) if card_memory else None
    known = source.read() if source.inventory else _discovered(devices, source)
    return find_cards(devices, cache, known, card_memory=stated, remembered=store.remembered())


def _discovered(devices: list[str], source: Source) -> "Inventory | None":
    """Return what the node itself says of the cards, if anything."""
    from cdi.inventory_discover import discover
    from cdi.names import QualifiedName
    from cdi.shares.model import vendor_of_kind

    vendors = {vendor_of_kind(QualifiedName.parse(name).kind) for name in devices}
    wanted = [vendor for vendor in vendors if vendor is not None]
    return discover(source.root, vendors=wanted).inventory if wanted else None


def _to_json(share: "Share") -> dict[str, object]:
    return {
        "claim": share.claim,
        "device": share.name,
        "spec": share.path,
        "oversubscribe": share.oversubscribe,
        "parts": [
            {"device": part.device, "memory": part.memory, "cores": part.cores}
            for part in share.parts
        ],
    }


def _print(share: "Share", what: str, *, json: bool) -> None:
    if json:
        print_json({**_to_json(share), "state": what})
    elif what == "removed":
        print_note(f"{share.name}: removed")
    else:
        print_text(share.name)
        print_note(f"{share.path}: {what}")


def _list(store: "ShareStore", cache: "Cache", *, json: bool) -> None:
    from cdi.inventory_quantity import format_quantity
    from cdi.shares.store import card_usage

    shares, notes = store.list(cache)
    cards = card_usage(shares)
    if json:
        print_json(
            {
                "shares": [_to_json(share) for share in shares],
                "cards": [
                    {"device": name, "memory": total, "used_memory": used, "used_cores": percent}
                    for name, (used, percent, total) in cards.items()
                ],
            }
        )
    elif shares:
        rows = [
            (share.name, part.device, format_quantity(part.memory), str(part.cores or "-"))
            for share in shares
            for part in share.parts
        ]
        headings = ("SHARE", "CARD", "MEMORY", "CORES")
        print_text("\n".join(columns([headings, *rows], right=(2, 3))))
        for name, (used, percent, total) in cards.items():
            text = f"{format_quantity(used)} of {format_quantity(total)} memory"
            print_note(f"{name}: {text}, {percent} of 100 percent of cores")
    else:
        print_note("no shares")
    say(notes)
