"""Everything that is printed for Kubernetes, judged by Kubernetes' own validation.

``kube_oracle/main.go`` is that validation as a program: ``go build -o kube-oracle .`` there, and
put it on the path. It needs Go, so the tests are skipped without it.
"""

import json
import subprocess
from pathlib import Path

import pytest

from cdi.inventory_load import load_inventory
from cdi.kube.convert import convert_objects
from cdi.kube.manifests import dump
from cdi.kube.render import Ask, Form, PodOptions, render
from cdi.kube.resources import FAMILIES
from cdi.kube.slices import resource_slices
from tests.cdi.test_kube_convert import SHARES, WHOLE, WORKLOADS, container, pod, workload
from tests.support.programs import GO_BIN, find_program

ORACLE = find_program("kube-oracle") or GO_BIN / "kube-oracle"
EXAMPLES = sorted((Path(__file__).parents[2] / "examples/inventories").glob("*.yaml"))
GIB = 1024**3

pytestmark = pytest.mark.skipif(not ORACLE.exists(), reason="needs kube-oracle, built with Go")


def verdicts(objects):
    """Return the errors that Kubernetes finds in each object."""
    done = subprocess.run([ORACLE], input=dump(objects), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["errors"] for line in done.stdout.splitlines()]


def require_valid(objects):
    found = verdicts(objects)
    assert len(found) == len(objects)
    assert [errors for errors in found if errors] == []


def complete(value):
    """Return a workload's Pod spec with what Kubernetes requires beside what a test is about."""
    spec = value
    for key in WORKLOADS[value["kind"]][1]:
        spec = spec[key]
    spec["spec"]["restartPolicy"] = "Never" if "Job" in value["kind"] else "Always"
    return value


def test_the_oracle_finds_errors():
    bogus = pod(container({"cpu": 1}), bogus=1)
    dangling = pod({"name": "a", "image": "i", "resources": {"claims": [{"name": "none"}]}})
    unknown, missing = verdicts([bogus, dangling])
    assert "unknown field" in unknown[0]
    assert "claims" in missing[0]


@pytest.mark.parametrize(
    "limits",
    [{name: 2} for name in WHOLE] + [case[0] for case in SHARES.values()],
    ids=lambda v: next(iter(v)),
)
def test_converted_resources(limits):
    result = convert_objects([pod(container(limits, image="i"), restartPolicy="Never")])
    require_valid([*(one.to_object() for one in result.classes), *result.objects])


def test_converted_percentages_and_annotations():
    annotations = {
        "nvidia.com/use-gpuuuid": "GPU-1,GPU-2",
        "nvidia.com/nouse-gputype": "1080,o'\\ne",
    }
    value = pod(
        container({"nvidia.com/gpu": 3, "nvidia.com/gpumem-percentage": 50}),
        annotations=annotations,
    )
    require_valid(convert_objects([value]).objects)


@pytest.mark.parametrize(
    "kind", [kind for kind in WORKLOADS if kind not in ("ReplicationController", "PodTemplate")]
)
def test_converted_workloads(kind):
    limits = {"nvidia.com/gpu": 1, "nvidia.com/gpumem": 4000}
    spec = {
        "containers": [container(limits)],
        "initContainers": [container(limits, "warm"), container({"nvidia.com/gpu": 2}, "more")],
    }
    require_valid(convert_objects([complete(workload(kind, spec))]).objects)


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("kind", sorted({family.kind for family in FAMILIES}))
def test_rendered(form, kind):
    names = {"intel.com/gpu": "gpu.intel.com/xe", "hygon.com/dcu": "hygon.com/dcunum"}
    device = names.get(kind, kind) if form is Form.DEVICE_PLUGIN else kind
    require_valid(render("r.example/m:1", Ask(device=device, count=3), form).objects)


@pytest.mark.parametrize("form", Form)
def test_rendered_parts(form):
    ask = Ask(device="nvidia.com/gpu", count=2, memory=24 * GIB, cores=30)
    require_valid(render("r.example/m:1", ask, form, PodOptions(namespace="ml", image="i")).objects)


@pytest.mark.parametrize("shared", [False, True], ids=["whole", "shared"])
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_slices(path, shared):
    require_valid(resource_slices(load_inventory(path.read_text()), node="n1", shared=shared))
