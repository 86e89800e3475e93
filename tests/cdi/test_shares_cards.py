"""Which card a device name is: identity, order, memory."""

from dataclasses import replace

import pytest

from cdi.cache import Cache
from cdi.errors import CdiUsageError, UnresolvableError
from cdi.inventory import Inventory, Partition, PartitionType, Vendor
from cdi.shares.cards import find_cards
from tests.cdi.shares_machine import GIB, Machine, amd, gpu, npu


@pytest.fixture
def machine(tmp_path):
    return Machine(
        tmp_path, Inventory(devices=(gpu(0), gpu(1), gpu(2, pci=""), amd(0), npu(0), npu(1)))
    )


def names(cards):
    return [card.device for card in cards]


@pytest.mark.parametrize(
    "name", ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-0", "nvidia.com/gpu=gpu0"]
)
def test_every_name_of_a_card_is_the_card(machine, name):
    (card,) = machine.cards(name)
    assert card.memory == 80 * GIB
    assert card.keys == {"nodes /dev/nvidia0", "uuid GPU-0", "pci 0000:10:00.0"}


def test_cards_come_in_the_order_of_their_addresses(tmp_path):
    """The container numbers its GPUs by PCI address, not by index or by what was asked for first."""
    far, near = gpu(0, pci="0000:90:00.0"), gpu(1, pci="0000:18:00.0")
    machine = Machine(tmp_path, Inventory(devices=(far, near)))
    assert names(machine.cards("nvidia.com/gpu=0", "nvidia.com/gpu=1")) == [
        "nvidia.com/gpu=1", "nvidia.com/gpu=0",
    ]  # fmt: skip


def test_cards_without_addresses_come_in_the_order_of_their_nodes(tmp_path):
    devices = tuple(gpu(i, pci="") for i in range(12))
    machine = Machine(tmp_path, Inventory(devices=devices))
    asked = [f"nvidia.com/gpu={i}" for i in (10, 2, 9)]
    assert names(machine.cards(*asked)) == [f"nvidia.com/gpu={i}" for i in (2, 9, 10)]


def test_numbers_and_ids(machine):
    assert [card.number for card in machine.cards("ascend.com/npu=1", "ascend.com/npu=0")] == [0, 1]
    (card,) = machine.cards("amd.com/gpu=0")
    assert (card.uuid, card.units) == ("GPU-0000000000000000", 304)
    assert not any("kfd" in key for key in card.keys)


def test_memory_without_an_inventory(machine):
    name = "nvidia.com/gpu=0"
    with pytest.raises(CdiUsageError, match=r"nvidia.com/gpu=0: how much memory .* --card-memory"):
        find_cards([name], machine.cache, None, card_memory=None)
    (card,) = find_cards([name], machine.cache, None, card_memory=GIB)
    assert card.memory == GIB
    (card,) = find_cards(
        [name], machine.cache, None, card_memory=None, remembered={"nodes /dev/nvidia0": 5 * GIB}
    )
    assert card.memory == 5 * GIB


def test_what_is_stated_wins(machine):
    (card,) = find_cards(["nvidia.com/gpu=0"], machine.cache, machine.inventory, card_memory=GIB)
    assert card.memory == GIB


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        (["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-0"], "are one card"),
        (["nvidia.com/gpu=0", "amd.com/gpu=0"], "one vendor"),
        (["nvidia.com/gpu=all"], "several cards"),
    ],
)
def test_what_no_claim_has(machine, devices, words):
    with pytest.raises(CdiUsageError, match=words):
        machine.cards(*devices)


def test_unknown_devices(machine):
    with pytest.raises(UnresolvableError, match=r"nvidia\.com/gpu=9, x\.com/y=0"):
        machine.cards("nvidia.com/gpu=9", "nvidia.com/gpu=0", "x.com/y=0")


def test_partitions_are_not_divided_further(tmp_path):
    mig = Partition(
        type=PartitionType.MIG, index=0, uuid="MIG-1", gi=1, ci=0, gi_minor=12, ci_minor=13
    )
    machine = Machine(tmp_path, Inventory(devices=(replace(gpu(0), partitions=(mig,)),)))
    with pytest.raises(CdiUsageError, match="is a partition"):
        machine.cards("nvidia.com/gpu=0:0")


def test_vendors_without_a_library(tmp_path):
    device = replace(npu(0), vendor=Vendor.KUNLUNXIN, type="xpu")
    machine = Machine(tmp_path, Inventory(devices=(device,)))
    with pytest.raises(CdiUsageError, match="devices of kunlunxin cannot be shared"):
        machine.cards("kunlunxin.com/xpu=0")


def test_an_empty_cache():
    with pytest.raises(UnresolvableError):
        find_cards(["nvidia.com/gpu=0"], Cache.load(()), None, card_memory=GIB)
