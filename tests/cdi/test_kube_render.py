"""New Pods: the image volume, the three ways to ask for devices, and names that agree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi.annotations import requested_devices
from cdi.errors import CdiUsageError
from cdi.kube._names import is_label
from cdi.kube.render import Ask, Form, PodOptions, name_of, render
from cdi.shares import share_device

GIB = 1024**3
REFERENCE = "registry.example:5000/models/llama-3:v1"
PART = Ask(device="nvidia.com/gpu", count=2, memory=24 * GIB, cores=30)


def pod_of(made):
    (pod,) = [value for value in made.objects if value["kind"] == "Pod"]
    return pod


@pytest.mark.parametrize("form", Form)
def test_every_form_mounts_the_image(form):
    options = PodOptions(image="vllm/vllm:1", mount="/data/m", name="serve", namespace="ml")
    pod = pod_of(render(REFERENCE, Ask(device="nvidia.com/gpu"), form, options))
    assert pod["metadata"]["name"] == "serve"
    assert pod["metadata"]["namespace"] == "ml"
    assert pod["spec"]["volumes"] == [
        {"name": "model", "image": {"reference": REFERENCE, "pullPolicy": "IfNotPresent"}}
    ]
    (container,) = pod["spec"]["containers"]
    assert container["image"] == "vllm/vllm:1"
    assert "command" not in container
    assert container["volumeMounts"] == [
        {"name": "model", "mountPath": "/data/m", "readOnly": True}
    ]


def test_dra_whole():
    device_class, template, pod = render(
        REFERENCE, Ask(device="amd.com/gpu", count=4), Form.DRA
    ).objects
    assert device_class["metadata"]["name"] == "gpu.amd.com"
    assert device_class["spec"]["selectors"][0]["cel"]["expression"] == (
        "device.driver == 'gpu.amd.com' && device.attributes['gpu.amd.com'].type == 'gpu'"
    )
    assert template["metadata"] == {"name": "llama-3-gpu"}
    assert template["spec"]["spec"]["devices"]["requests"] == [
        {
            "name": "gpu",
            "exactly": {
                "deviceClassName": "gpu.amd.com",
                "allocationMode": "ExactCount",
                "count": 4,
            },
        }
    ]
    spec = pod["spec"]
    assert spec["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": "llama-3-gpu"}]
    assert spec["containers"][0]["resources"] == {"claims": [{"name": "gpu"}]}


def test_dra_parts():
    made = render(REFERENCE, PART, Form.DRA, PodOptions(with_class=False))
    template, _ = made.objects
    assert template["spec"]["spec"]["devices"]["requests"][0]["exactly"] == {
        "deviceClassName": "hami-core-gpu.project-hami.io",
        "allocationMode": "ExactCount",
        "count": 2,
        "capacity": {"requests": {"cores": "30", "memory": "24Gi"}},
    }


@pytest.mark.parametrize(
    ("ask", "limits"),
    [
        (PART, {"nvidia.com/gpu": "2", "nvidia.com/gpumem": "24576", "nvidia.com/gpucores": "30"}),
        (Ask(device="amd.com/gpu"), {"amd.com/gpu": "1"}),
        (
            Ask(device="mthreads.com/gpu", memory=16 * GIB, cores=50),
            {
                "mthreads.com/vgpu": "1",
                "mthreads.com/sgpu-memory": "32",
                "mthreads.com/sgpu-core": "8",
            },
        ),
        (
            Ask(device="metax-tech.com/gpu", memory=4 * GIB),
            {"metax-tech.com/sgpu": "1", "metax-tech.com/vmemory": "4"},
        ),
        (
            Ask(device="huawei.com/Ascend910B3", cores=10),
            {"huawei.com/Ascend910B3": "1", "huawei.com/Ascend910B3-core": "10"},
        ),
    ],
    ids=lambda value: value.device if isinstance(value, Ask) else "",
)
def test_device_plugin(ask, limits):
    (pod,) = render(REFERENCE, ask, Form.DEVICE_PLUGIN).objects
    assert pod["spec"]["containers"][0]["resources"] == {"limits": limits}


@pytest.mark.parametrize(
    ("device", "count", "names"),
    [
        ("nvidia.com/gpu", 2, ("nvidia.com/gpu=0", "nvidia.com/gpu=1")),
        ("nvidia.com/gpu=GPU-1", 1, ("nvidia.com/gpu=GPU-1",)),
        ("huawei.com/Ascend910B3", 1, ("ascend.com/npu=0",)),
        ("ascend.com/npu", 1, ("ascend.com/npu=0",)),
    ],
)
def test_cdi_annotation(device, count, names):
    (pod,) = render(REFERENCE, Ask(device=device, count=count), Form.CDI_ANNOTATION).objects
    assert requested_devices(pod["metadata"]["annotations"]) == names


def test_a_part_by_annotation_names_the_share_that_the_node_makes():
    made = render(REFERENCE, PART, Form.CDI_ANNOTATION, PodOptions(claim="job-7"))
    devices = ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]
    assert requested_devices(pod_of(made)["metadata"]["annotations"]) == (
        share_device("job-7", devices),
    )
    assert (
        "modelpack cdi share --claim job-7 --device nvidia.com/gpu=0 --device nvidia.com/gpu=1 "
        "--memory 24Gi --cores 30"
    ) in made.notes[0]


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        (REFERENCE, "llama-3"),
        ("a/B_C@sha256:00", "b-c"),
        ("oci:x", "oci"),
        ("///", "model"),
        ("x/" + "y" * 80, None),
    ],
)
def test_names_from_references(reference, name):
    assert is_label(name_of(reference))
    if name:
        assert name_of(reference) == name


@given(st.text(min_size=1, max_size=100))
def test_any_reference_gives_a_name(reference):
    assert is_label(name_of(reference))


@pytest.mark.parametrize(
    ("reference", "ask", "form", "options", "words"),
    [
        ("", Ask(device="amd.com/gpu"), Form.DRA, PodOptions(), "no image reference"),
        ("a b", Ask(device="amd.com/gpu"), Form.DRA, PodOptions(), "no image reference"),
        ("a\n", Ask(device="amd.com/gpu"), Form.DRA, PodOptions(), "no image reference"),
        ("r", Ask(device="x.com/y"), Form.DRA, PodOptions(), "no kind of device"),
        ("r", Ask(device="amd.com/gpu", count=0), Form.DRA, PodOptions(), "count 0"),
        ("r", Ask(device="amd.com/gpu", count=33), Form.DRA, PodOptions(), "33 devices"),
        ("r", Ask(device="amd.com/gpu", cores=101), Form.DRA, PodOptions(), "cores 101"),
        ("r", Ask(device="amd.com/gpu", memory=0), Form.DRA, PodOptions(), "memory"),
        ("r", Ask(device="amd.com/gpu=0"), Form.DRA, PodOptions(), "name amd.com/gpu"),
        ("r", Ask(device="amd.com/gpu=0"), Form.DEVICE_PLUGIN, PodOptions(), "name amd.com/gpu"),
        ("r", Ask(device="amd.com/gpu=0", count=2), Form.CDI_ANNOTATION, PodOptions(), "one device"),
        ("r", Ask(device="amd.com/gpu"), Form.DRA, PodOptions(mount="models"), "mount 'models'"),
        ("r", Ask(device="amd.com/gpu"), Form.DRA, PodOptions(mount="/a:b"), "mount"),
        ("r", Ask(device="amd.com/gpu"), Form.DRA, PodOptions(name="Up"), "name 'Up'"),
        ("r", Ask(device="amd.com/gpu"), Form.DRA, PodOptions(namespace="a.b"), "namespace"),
        ("r", Ask(device="kunlunxin.com/xpu", memory=GIB, cores=3), Form.DEVICE_PLUGIN, PodOptions(), "no resource for cores"),
        ("r", Ask(device="metax-tech.com/gpu", memory=GIB // 2), Form.DEVICE_PLUGIN, PodOptions(), "no multiple of 1Gi"),
        ("r", Ask(device="hygon.com/dcu", memory=GIB), Form.CDI_ANNOTATION, PodOptions(), "cannot be shared"),
        ("r", Ask(device="amd.com/gpu", memory=GIB), Form.CDI_ANNOTATION, PodOptions(claim="../x"), "claim"),
    ],
    ids=range(19),
)  # fmt: skip
def test_what_cannot_be_rendered(reference, ask, form, options, words):
    with pytest.raises(CdiUsageError, match=words):
        render(reference, ask, form, options)
