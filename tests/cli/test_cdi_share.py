"""modelpack cdi share: handing out, refusing, listing, taking back."""

import json

import pytest
import yaml

from tests.support.cdicli import fails

INVENTORY = """\
devices:
- {vendor: nvidia, index: 0, uuid: GPU-0, memory: 80Gi, pci: "0000:17:00.0", major: 195, minor: 0}
- {vendor: nvidia, index: 1, uuid: GPU-1, memory: 80Gi, pci: "0000:65:00.0", major: 195, minor: 1}
"""
PLACES = ("--spec-dir", "cdi", "--state", "state", "--hook-path", "hook")
NAME = "k8s.hami-core-gpu.project-hami.io/claim"


@pytest.fixture
def share(call, tmp_path):
    """Run 'cdi share' on a node with two GPUs."""
    (tmp_path / "node.yaml").write_text(INVENTORY)
    call("cdi", "generate", "--inventory", "node.yaml", "-o", "cdi/")

    def invoke(*arguments, inventory="node.yaml"):
        known = ("--inventory", inventory) if inventory else ()
        return call("cdi", "share", *arguments, *known, *PLACES)

    return invoke


def one(claim="a", device="nvidia.com/gpu=0", memory="8Gi", *more):
    return ("--claim", claim, "--device", device, "--memory", memory, *more)


def test_a_share(share, tmp_path):
    done = share(*one("job-7", "nvidia.com/gpu=0", "8Gi", "--cores", "30"))
    assert done.code == 0
    assert done.out == f"{NAME}=job-7\n"
    assert "libvgpu.so" in done.err
    (path,) = (tmp_path / "cdi").glob("k8s.*")
    assert path.name == "k8s.hami-core-gpu.project-hami.io-claim_job-7.yaml"
    env = yaml.safe_load(path.read_text())["devices"][0]["containerEdits"]["env"]
    assert {"CUDA_DEVICE_MEMORY_LIMIT_0=8192m", "CUDA_DEVICE_SM_LIMIT_0=30"} <= set(env)


def test_json(share, tmp_path):
    done = share(*one("a"), "--device", "nvidia.com/gpu=1", "--memory", "4Gi", "--json")
    assert json.loads(done.out) == {
        "claim": "a",
        "device": f"{NAME}=a",
        "spec": str(tmp_path / "cdi/k8s.hami-core-gpu.project-hami.io-claim_a.yaml"),
        "oversubscribe": False,
        "parts": [
            {"device": "nvidia.com/gpu=0", "memory": 8 << 30, "cores": 0},
            {"device": "nvidia.com/gpu=1", "memory": 4 << 30, "cores": 0},
        ],
        "state": "new",
    }
    again = share(*one("a"), "--device", "nvidia.com/gpu=1", "--memory", "4Gi", "--json")
    assert json.loads(again.out)["state"] == "unchanged"


def test_the_sum_never_exceeds_the_card(share):
    assert share(*one("a", "nvidia.com/gpu=0", "50Gi")).code == 0
    done = share(*one("b", "nvidia.com/gpu=0", "31Gi"))
    fails(done, 8, "nvidia.com/gpu=0 has 30Gi of 80Gi memory left", "--oversubscribe")
    assert share(*one("b", "nvidia.com/gpu=0", "31Gi", "--oversubscribe")).code == 0
    assert share(*one("c", "nvidia.com/gpu=1", "80Gi")).code == 0


def test_list_and_remove(share, tmp_path):
    assert share("--list").err.splitlines()[-1] == "no shares"
    share(*one("a", "nvidia.com/gpu=0", "8Gi", "--cores", "30"))
    done = share("--list")
    assert done.out.split() == [
        "SHARE",
        "CARD",
        "MEMORY",
        "CORES",
        f"{NAME}=a",
        "nvidia.com/gpu=0",
        "8Gi",
        "30",
    ]
    assert "nvidia.com/gpu=0: 8Gi of 80Gi memory, 30 of 100 percent of cores" in done.err
    found = json.loads(share("--list", "--json").out)
    assert [s["claim"] for s in found["shares"]] == ["a"]
    assert found["cards"] == [
        {"device": "nvidia.com/gpu=0", "memory": 80 << 30, "used_memory": 8 << 30, "used_cores": 30}
    ]
    assert share("--remove", "--claim", "a").code == 0
    assert not list((tmp_path / "cdi").glob("k8s.*"))
    fails(share("--remove", "--claim", "a"), 3, "no claim a", "--list")


def test_memory_of_cards_is_stated_or_remembered(share):
    fails(share(*one("a"), inventory=""), 2, "nvidia.com/gpu=0", "--inventory", "--card-memory")
    assert share(*one("a"), "--card-memory", "10Gi", inventory="").code == 0
    fails(share(*one("b"), inventory=""), 8, "has 2Gi of 10Gi")


def test_a_broken_ledger(share, tmp_path):
    share(*one("a"))
    (tmp_path / "state/shares.json").write_text("{")
    fails(share(*one("b")), 5, "state/shares.json is not a ledger")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, ["--claim"]),
        (("--claim", "a"), 2, ["--device"]),
        (("--claim", "a", "--device", "nvidia.com/gpu=0"), 2, ["--memory"]),
        (one("../a"), 2, ["claim '../a'"]),
        (one("a", "nvidia.com/gpu=9"), 3, ["unresolvable CDI devices nvidia.com/gpu=9"]),
        (one("a", "nvidia.com/gpu=all"), 2, ["several cards"]),
        (one("a", "nvidia.com/gpu=0", "8Gb"), 2, ["'8Gb' is no amount of memory"]),
        (one("a", "nvidia.com/gpu=0", "1000"), 2, ["no whole number of MiB"]),
        (one("a", "nvidia.com/gpu=0", "1Gi", "--cores", "101"), 2, ["cores 101"]),
        (one("a", "nvidia.com/gpu=0", "1Gi", "--device", "nvidia.com/gpu=0"), 2, ["twice"]),
        (one("a", "nvidia.com/gpu=0", "1Gi", "--device", "nvidia.com/gpu=GPU-0"), 3, ["GPU-0"]),
        (
            one("a", "nvidia.com/gpu=0", "1Gi", "--memory", "2Gi"),
            2,
            ["--memory is given 2 times for 1"],
        ),
        (("--remove",), 2, ["--claim"]),
        (("--remove", *one()), 2, ["only --claim"]),
        (("--list", "--claim", "a"), 2, ["--list stands alone"]),
    ],
    ids=range(15),
)
def test_bad_calls(share, arguments, code, words):
    fails(share(*arguments), code, *words)


def test_places_that_cannot_be_used(share, call, tmp_path):
    (tmp_path / "file").write_text("")
    done = call(
        "cdi", "share", *one(), "--spec-dir", "cdi", "--state", "file/x", "--inventory", "node.yaml"
    )
    fails(done, 1, "file/x is not usable for the ledger")
