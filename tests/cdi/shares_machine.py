"""A node for tests of shares: an inventory's specs in a directory, and a store over it."""

from dataclasses import dataclass
from pathlib import Path

from cdi.cache import Cache
from cdi.files import spec_file_name, write_spec
from cdi.generate import GenerateOptions, NameStrategy, generate
from cdi.inventory import Accelerator, Inventory, Vendor
from cdi.shares.cards import find_cards
from cdi.shares.store import Amount, ShareStore

GIB = 1024**3


def gpu(index, *, memory=80 * GIB, pci=None, uuid=None):
    return Accelerator(
        vendor=Vendor.NVIDIA,
        type="gpu",
        index=index,
        memory=memory,
        uuid=uuid if uuid is not None else f"GPU-{index}",
        pci=pci if pci is not None else f"0000:{index + 16:02x}:00.0",
        major=195,
        minor=index,
    )


def amd(index, units=304):
    return Accelerator(
        vendor=Vendor.AMD,
        type="gpu",
        index=index,
        memory=192 * GIB,
        uuid=f"GPU-{index:016x}",
        card=index + 1,
        render=128 + index,
        attributes={"computeUnits": units} if units else {},
    )


def npu(index):
    return Accelerator(
        vendor=Vendor.ASCEND,
        type="npu",
        index=index,
        memory=64 * GIB,
        uuid=f"NPU-{index}",
        major=500,
        minor=index,
    )


@dataclass
class Machine:
    """A node's directories; its hook path is there, and HAMi is not installed."""

    root: Path
    inventory: Inventory

    def __post_init__(self):
        self.specs = self.root / "cdi"
        self.state = self.root / "state"
        self.hook = self.root / "hook"
        self.hook.mkdir(parents=True, exist_ok=True)
        self.regenerate()

    def regenerate(self):
        for spec in generate(self.inventory, GenerateOptions(names=tuple(NameStrategy))).specs:
            write_spec(spec, self.specs / spec_file_name(spec))

    @property
    def store(self):
        return ShareStore(state=self.state, spec_dir=self.specs, hook_path=str(self.hook))

    @property
    def cache(self):
        return Cache.load([self.specs])

    def cards(self, *devices):
        return find_cards(devices, self.cache, self.inventory, card_memory=None)

    def share(self, claim, *devices, memory=8 * GIB, cores=0, **options):
        cards = self.cards(*devices)
        amounts = [Amount(memory=memory, cores=cores)] * len(cards)
        return self.store.add(claim, cards, amounts, self.cache, **options)

    def shares(self):
        return self.store.list(self.cache)[0]

    def spec_files(self):
        return sorted(path.name for path in self.specs.glob("k8s.*"))
