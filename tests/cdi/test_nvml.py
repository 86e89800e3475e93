"""NVML through a module of our own: what it tells is used, and its failures are none of ours."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from cdi.discovery.tree import Tree
from cdi.generate import GenerateOptions, NameStrategy, generate
from cdi.inventory import Inventory, Vendor
from cdi.vendors.nvidia import Nvidia
from cdi.vendors.nvidia_nvml import NvmlGpu, NvmlMig, import_pynvml, read_nvml
from tests.cdi.machines import nvidia
from tests.cdi.machines.build import build


class NVMLError(Exception):
    pass


@dataclass
class FakeNvml:
    """Answers as pynvml does; handles are dictionaries."""

    gpus: list = field(default_factory=list)
    broken: str = ""
    shut: bool = False
    NVMLError = NVMLError
    NVML_DEVICE_MIG_ENABLE = 1

    def __getattr__(self, name):
        def call(*args):
            if name == self.broken:
                raise NVMLError(name)
            return self.answer(name, *args)

        return call

    def answer(self, name, *args):
        match name, args:
            case "nvmlInit", ():
                return None
            case "nvmlShutdown", ():
                self.shut = True
                return None
            case "nvmlDeviceGetCount", ():
                return len(self.gpus)
            case "nvmlDeviceGetHandleByIndex", (index,):
                return self.gpus[index]
            case "nvmlDeviceGetMigMode", (gpu,):
                if "migs" not in gpu:
                    raise NVMLError("not supported")
                return (1, 1)
            case "nvmlDeviceGetMaxMigDeviceCount", (_,):
                return 7
            case "nvmlDeviceGetMigDeviceHandleByIndex", (gpu, index):
                if index >= len(gpu["migs"]):
                    raise NVMLError("not found")
                return gpu["migs"][index]
            case "nvmlDeviceGetPciInfo", (gpu,):
                return SimpleNamespace(busId=gpu["pci"])
            case "nvmlDeviceGetMemoryInfo", (gpu,):
                return SimpleNamespace(total=gpu["memory"])
        (handle,) = args
        return handle[name.removeprefix("nvmlDeviceGet")]


MIG = {
    "UUID": b"MIG-1",
    "GpuInstanceId": 2,
    "ComputeInstanceId": 0,
    "Name": "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
    "memory": 20 << 30,
}
GPU0 = {
    "UUID": nvidia.UUIDS[0],
    "MinorNumber": 0,
    "pci": b"00000000:07:00.0",
    "Name": "NVIDIA A100-SXM4-40GB",
    "memory": 40 << 30,
}
GPU1 = {**GPU0, "UUID": nvidia.UUIDS[1], "MinorNumber": 1, "pci": "00000000:0F:00.0", "migs": [MIG]}


class TestRead:
    def test_facts(self):
        nvml = FakeNvml([GPU0, GPU1])
        whole, divided = read_nvml(lambda _: nvml)
        assert whole == NvmlGpu(
            index=0,
            uuid=nvidia.UUIDS[0],
            minor=0,
            pci="0000:07:00.0",
            product="NVIDIA A100-SXM4-40GB",
            memory=40 << 30,
        )
        assert divided.pci == "0000:0f:00.0"
        assert divided.migs == (
            NvmlMig(
                index=0,
                uuid="MIG-1",
                gi=2,
                ci=0,
                name="NVIDIA A100-SXM4-40GB MIG 3g.20gb",
                memory=20 << 30,
            ),
        )
        assert nvml.shut

    @pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetUUID"])
    def test_any_failure_is_no_nvml(self, call):
        assert read_nvml(lambda _: FakeNvml([GPU0], broken=call)) is None

    def test_a_gpu_without_memory_of_its_own(self):
        (gpu,) = read_nvml(lambda _: FakeNvml([GPU0], broken="nvmlDeviceGetMemoryInfo"))
        assert gpu.memory is None

    def test_no_module(self):
        assert import_pynvml("a_module_that_nobody_has") is None
        assert read_nvml(lambda _: None) is None


class LiveTree(Tree):
    """A recorded tree that passes for the running machine."""

    is_live = True


class TestDiscovery:
    def discover(self, tmp_path, known):
        module = Nvidia(nvml=lambda: known)
        found = module.discover(LiveTree(build(tmp_path, nvidia.MIG)), "/")
        inventory = Inventory(devices=found.devices, drivers={Vendor.NVIDIA: found.driver})
        return inventory, found.notes

    def test_nvml_names_what_procfs_cannot(self, tmp_path):
        known = read_nvml(lambda _: FakeNvml([GPU0, GPU1]))
        inventory, notes = self.discover(tmp_path, known)
        (part,) = inventory.devices[1].partitions
        assert (part.uuid, part.profile, part.memory) == ("MIG-1", "3g.20gb", 20 << 30)
        assert [node.path for node in part.nodes] == [
            "/dev/nvidia-caps/nvidia-cap156",
            "/dev/nvidia-caps/nvidia-cap157",
        ]
        assert inventory.devices[0].memory == 40 << 30
        assert not any("UUIDs" in note.text for note in notes)
        options = GenerateOptions(names=(NameStrategy.UUID,), with_all=False)
        (spec,) = generate(inventory, options).specs
        assert [device.name for device in spec.devices] == [nvidia.UUIDS[0], "MIG-1"]

    def test_mig_on_without_an_instance_offers_no_device(self, tmp_path):
        known = read_nvml(lambda _: FakeNvml([GPU0, {**GPU1, "migs": []}]))
        inventory, notes = self.discover(tmp_path, known)
        assert any(note.text == "GPU 1: MIG is on and no instance is set up" for note in notes)
        (spec,) = generate(inventory, GenerateOptions(with_all=False)).specs
        assert [device.name for device in spec.devices] == ["0"]

    def test_nvmls_order_counts(self, tmp_path):
        known = read_nvml(lambda _: FakeNvml([{**GPU1, "migs": []}, GPU0]))
        inventory, _ = self.discover(tmp_path, known)
        assert [(gpu.index, gpu.minor) for gpu in inventory.devices] == [(0, 1), (1, 0)]

    def test_a_recorded_tree_never_asks(self, tmp_path):
        def refuse():
            raise AssertionError("NVML was asked about a recorded tree")

        found = Nvidia(nvml=refuse).discover(Tree(build(tmp_path, nvidia.MIG)), "/")
        assert len(found.devices) == 2

    def test_without_nvml_procfs_speaks(self, tmp_path):
        inventory, _ = self.discover(tmp_path, None)
        assert [len(gpu.partitions or ()) for gpu in inventory.devices] == [0, 2]
