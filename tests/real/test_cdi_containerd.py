"""containerd injects what modelpack generates, through CRI, as a kubelet asks for it.

The inventories are of machines that are not here: every device node is given with its type and
numbers, so the nodes in the containers are real ones, with no driver behind them. The driver's files
are made up below the test's directory.
"""

import json

import grpc
import pytest
import yaml

from tests.support.command import Command

pytestmark = [
    pytest.mark.real("docker-registry", "containerd", "runc", "busybox"),
    pytest.mark.root,
]

GIB = 1024**3


def nvidia(files):
    return {
        "driver": {
            "version": "580.95.05",
            "nodes": [
                {"path": "/dev/nvidiactl", "major": 195, "minor": 255, "mode": "0666"},
                {"path": "/dev/nvidia-uvm", "major": 510, "minor": 0, "mode": "0666"},
            ],
            "libraries": [
                {"path": str(files / "libcuda.so.580.95.05"), "container": "/usr/lib/libcuda.so.580.95.05"}
            ],
        },
        "devices": [
            {"vendor": "nvidia", "index": i, "uuid": f"GPU-{i}", "memory": "141Gi",
             "pci": f"0000:{17 + i}:00.0", "major": 195, "minor": i}
            for i in range(2)
        ],
    }  # fmt: skip


def amd(_):
    return {
        "driver": {"nodes": [{"path": "/dev/kfd", "major": 235, "minor": 0, "mode": "0660"}]},
        "devices": [
            {"vendor": "amd", "index": i, "card": i + 1, "render": 128 + i, "memory": "192Gi",
             "attributes": {"computeUnits": 304}}
            for i in range(2)
        ],
    }  # fmt: skip


def ascend(files):
    numbers = {"davinci_manager": 504, "devmm_svm": 503, "hisi_hdc": 505}
    return {
        "driver": {
            "nodes": [
                {"path": f"/dev/{name}", "major": major, "minor": 0, "mode": "0660"}
                for name, major in numbers.items()
            ],
            "binaries": [{"path": str(files / "npu-smi"), "container": "/usr/local/bin/npu-smi"}],
        },
        "devices": [
            {"vendor": "ascend", "index": i, "memory": "64Gi", "major": 502, "minor": i}
            for i in range(2)
        ],
    }  # fmt: skip


# The inventory, a device, and what a container with it has: nodes with numbers, and one file.
VENDORS = {
    "nvidia": (nvidia, "nvidia.com/gpu=1", {
        "/dev/nvidia1": (195, 1), "/dev/nvidiactl": (195, 255), "/dev/nvidia-uvm": (510, 0),
    }, "/usr/lib/libcuda.so.580.95.05"),
    "amd": (amd, "amd.com/gpu=1", {
        "/dev/kfd": (235, 0), "/dev/dri/card2": (226, 2), "/dev/dri/renderD129": (226, 129),
    }, ""),
    "ascend": (ascend, "ascend.com/npu=1", {
        "/dev/davinci1": (502, 1), "/dev/davinci_manager": (504, 0),
        "/dev/devmm_svm": (503, 0), "/dev/hisi_hdc": (505, 0),
    }, "/usr/local/bin/npu-smi"),
}  # fmt: skip


@pytest.fixture
def modelpack(tmp_path):
    return Command(tmp_path / "home")


@pytest.fixture
def files(tmp_path):
    """A driver's files, each with its own name in it."""
    directory = tmp_path / "driver"
    directory.mkdir()
    for name in ("libcuda.so.580.95.05", "npu-smi"):
        (directory / name).write_text(name)
    return directory


@pytest.fixture
def node(containerd_node):
    """The node with empty spec directories."""
    yield containerd_node
    for directory in (containerd_node.etc_cdi, containerd_node.run_cdi):
        for path in directory.iterdir():
            path.unlink()


def declare(tmp_path, inventory):
    path = tmp_path / "inventory.yaml"
    path.write_text(yaml.safe_dump(inventory))
    return path


def done(finished):
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def numbers(container, path):
    """Return a device node's numbers as the container's own stat prints them."""
    text = container.exec(["stat", "-c", "%F %t %T", path]).stdout
    *kind, major, minor = text.split()
    assert kind == ["character", "special", "file"]
    return int(major, 16), int(minor, 16)


@pytest.mark.parametrize("vendor", VENDORS)
def test_generated_devices_arrive(node, modelpack, files, tmp_path, vendor):
    make, device, nodes, file = VENDORS[vendor]
    inventory = declare(tmp_path, make(files))
    done(modelpack.run("cdi", "generate", "--inventory", inventory, "--output", node.etc_cdi))
    with node.container(devices=[device]) as container:
        for path, expected in nodes.items():
            assert numbers(container, path) == expected
        if file:
            assert container.exec(["cat", file]).stdout == file.rpartition("/")[2]
        listed = container.exec(["ls", "/dev"]).stdout.split()
    for other in ("nvidia0", "davinci0"):
        assert other not in listed


def test_the_environment_arrives(node, modelpack, files, tmp_path):
    inventory = declare(tmp_path, nvidia(files))
    done(modelpack.run("cdi", "generate", "--inventory", inventory, "--output", node.etc_cdi))
    env = node.run_with_cdi(["nvidia.com/gpu=0"], ["env"]).stdout.split()
    assert "NVIDIA_VISIBLE_DEVICES=void" in env


def test_all_is_every_device(node, modelpack, files, tmp_path):
    inventory = declare(tmp_path, amd(files))
    done(modelpack.run("cdi", "generate", "--inventory", inventory, "--output", node.etc_cdi))
    with node.container(devices=["amd.com/gpu=all"]) as container:
        assert numbers(container, "/dev/dri/renderD128") == (226, 128)
        assert numbers(container, "/dev/dri/renderD129") == (226, 129)


def test_a_conflict_is_unresolvable_as_lint_says(node, modelpack, files, tmp_path):
    inventory = declare(tmp_path, nvidia(files))
    directories = ("--spec-dir", node.etc_cdi, "--spec-dir", node.run_cdi)
    for path in (node.etc_cdi / "nvidia.com-gpu.yaml", node.etc_cdi / "nvidia.com-gpu_copy.yaml",
                 node.run_cdi / "nvidia.com-gpu.yaml"):  # fmt: skip
        done(modelpack.run("cdi", "generate", "--inventory", inventory, "--output", path))

    found = modelpack.run("cdi", "lint", "--json", *directories)
    assert found.returncode == 5
    conflicts = [f for f in json.loads(found.stdout) if f["rule"] == "conflict"]
    assert any("nvidia.com/gpu=0 " in finding["reason"] for finding in conflicts)
    listed = json.loads(done(modelpack.run("cdi", "list", "--json", *directories)))
    assert {row["name"]: row["conflict"] for row in listed}["nvidia.com/gpu=0"] is True

    with pytest.raises(grpc.RpcError, match=r"unresolvable CDI devices nvidia.com/gpu=0"):
        node.run_with_cdi(["nvidia.com/gpu=0"], ["env"])
    (node.etc_cdi / "nvidia.com-gpu_copy.yaml").unlink()
    node.run_with_cdi(["nvidia.com/gpu=0"], ["env"])


SHARES = {
    "nvidia": (nvidia, "nvidia.com/gpu", "vgpu/libvgpu.so", [
        "CUDA_DEVICE_MEMORY_LIMIT_0=8192m", "CUDA_DEVICE_SM_LIMIT_0=30",
        "CUDA_DEVICE_MEMORY_LIMIT_1=8192m", "CUDA_DEVICE_SM_LIMIT_1=30",
    ], "/dev/nvidia1"),
    "amd": (amd, "amd.com/gpu", "vgpu/libamvgpu.so", [
        "HIP_DEVICE_MEMORY_LIMIT=8192m", "HSA_CU_MASK=0:0-90;1:0-90",
    ], "/dev/dri/renderD129"),
    "ascend": (ascend, "ascend.com/npu", "hami-vnpu-core/libvnpu.so", [
        "ASCEND_VISIBLE_DEVICES=0,1", "NPU_MEM_QUOTA=8192", "NPU_PRIORITY=30",
        "NPU_GLOBAL_SHM_PATH=/hami-shared-region/0_global_registry",
    ], "/dev/davinci1"),
}  # fmt: skip


@pytest.mark.parametrize("vendor", SHARES)
def test_a_claims_share_arrives(node, modelpack, files, tmp_path, vendor):
    make, kind, library, expected, last_node = SHARES[vendor]
    inventory = declare(tmp_path, make(files))
    hook = tmp_path / "hami"
    for path in (hook / library, (hook / library).parent / "ld.so.preload"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")  # the loader takes an empty list, and no library is needed
    done(modelpack.run("cdi", "generate", "--inventory", inventory, "--output", node.etc_cdi))
    places = ("--state", tmp_path / "state", "--spec-dir", node.etc_cdi, "--spec-dir", node.run_cdi)
    share = modelpack.json(
        "cdi", "share", "--claim", "job-7", "--memory", "8Gi", "--cores", "30",
        "--device", f"{kind}=1", "--device", f"{kind}=0",
        "--inventory", inventory, "--hook-path", hook, *places,
    )  # fmt: skip
    with node.container(devices=[share["device"]]) as container:
        env = container.exec(["env"]).stdout.split("\n")
        assert [variable for variable in env if variable in expected] == expected
        assert numbers(container, last_node)
        if vendor == "nvidia":
            cache = next(v for v in env if "SHARED_CACHE" in v).partition("=")[2]
            container.exec(["touch", cache])
            assert (hook / "vgpu/claims/job-7" / cache.rpartition("/")[2]).exists()
            assert container.exec(["touch", "/usr/local/vgpu/libvgpu.so"], check=False).returncode
    done(modelpack.run("cdi", "share", "--remove", "--claim", "job-7", *places))
    with pytest.raises(grpc.RpcError, match="unresolvable CDI devices"):
        node.run_with_cdi([share["device"]], ["env"])


def test_an_annotation_asks_as_a_pod_does(node, modelpack, files, tmp_path):
    """What k8s render prints as an annotation is what the runtime takes."""
    inventory = declare(tmp_path, amd(files))
    done(modelpack.run("cdi", "generate", "--inventory", inventory, "--output", node.etc_cdi))
    asked = ("--device", "amd.com/gpu", "--count", "2", "--as", "cdi-annotation")
    text = done(modelpack.run("k8s", "render", "r.example/m:1", *asked))
    annotations = yaml.safe_load(text)["metadata"]["annotations"]
    with node.container(annotations=annotations) as container:
        assert numbers(container, "/dev/dri/renderD129") == (226, 129)
