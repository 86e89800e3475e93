"""kubectl reads what is printed for Kubernetes, without a cluster.

``kubectl set image --local`` decodes a workload into the API's own types and prints it again, so a
field that those types do not have would be missing; ``kubectl kustomize`` reads objects of any type.
"""

import pytest
import yaml

from cdi.kube.convert import convert_objects
from cdi.kube.manifests import dump
from cdi.kube.render import Ask, Form, render
from cdi.kube.slices import resource_slices
from tests.cdi.test_kube_convert import WORKLOADS, container, workload
from tests.cdi.test_kube_slices import nvidia
from tests.support import programs

pytestmark = [pytest.mark.real("kubectl"), pytest.mark.root]

GIB = 1024**3


def read_and_printed(value):
    """Return an object as kubectl decodes and prints it, with every image set to i."""
    before = dump([value]).replace("image: i\n", "image: other\n")
    done = programs.run(
        "kubectl", "set", "image", "--local", "-f", "-", "*=i", "-o", "yaml", input=before
    )
    return yaml.safe_load(done.stdout)


def is_within(value, other):
    """Tell whether all of a JSON value is in another one, which may hold more."""
    if isinstance(value, dict):
        return isinstance(other, dict) and all(
            key in other and is_within(inner, other[key]) for key, inner in value.items()
        )
    if isinstance(value, list):
        return (
            isinstance(other, list)
            and len(value) == len(other)
            and all(map(is_within, value, other))
        )
    return value == other


@pytest.mark.parametrize("form", Form)
def test_rendered_pods_keep_every_field(form):
    ask = Ask(device="nvidia.com/gpu", memory=24 * GIB, cores=30)
    pod = render("r.example/m:1", ask, form).objects[-1]
    pod["spec"]["containers"][0]["image"] = "i"
    assert is_within(pod, read_and_printed(pod))


@pytest.mark.parametrize("kind", [k for k in WORKLOADS if k != "PodTemplate"])
def test_converted_workloads_keep_every_field(kind):
    spec = {
        "containers": [container({"nvidia.com/gpu": 1})],
        "initContainers": [container({"nvidia.com/gpu": 1}, "warm")],
    }
    _, converted = convert_objects([workload(kind, spec)]).objects
    assert is_within(converted, read_and_printed(converted))


def test_everything_is_read(tmp_path):
    objects = [
        *render("r.example/m:1", Ask(device="nvidia.com/gpu", cores=30), Form.DRA).objects,
        *resource_slices(nvidia(130)),
    ]
    (tmp_path / "objects.yaml").write_text(dump(objects))
    (tmp_path / "kustomization.yaml").write_text("resources: [objects.yaml]\n")
    printed = programs.run("kubectl", "kustomize", tmp_path).stdout
    found = {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(printed)}
    assert found == {(o["kind"], o["metadata"]["name"]): o for o in objects}
