"""Extended resources to DRA claims: each vendor, each kind of workload, and what stays."""

import copy

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cdi.kube.claims import USUAL_STEPS, CardSizes
from cdi.kube.convert import convert_objects, convert_text
from cdi.kube.manifests import InvalidManifestError

MIB, GIB = 1024**2, 1024**3
HAMI = "hami-core-gpu.project-hami.io"
TEMPLATE = "ResourceClaimTemplate"


def pod(*containers, name="p", init=(), annotations=None, **spec):
    metadata = {"name": name, **({"annotations": annotations} if annotations else {})}
    body = {"containers": list(containers), **spec}
    body |= {"initContainers": list(init)} if init else {}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body}


def container(limits, name="main", **more):
    return {"name": name, "image": "i", "resources": {"limits": limits}, **more}


def converted(*objects, sizes=None):
    """Convert, and return the templates by name and the other objects."""
    found = convert_objects(objects, sizes).objects
    templates = {o["metadata"]["name"]: o for o in found if o["kind"] == TEMPLATE}
    return templates, [o for o in found if o["kind"] != TEMPLATE]


def request(limits, **options):
    """Return the one request that one container's limits become."""
    templates, _ = converted(pod(container(limits)), **options)
    (template,) = templates.values()
    (only,) = template["spec"]["spec"]["devices"]["requests"]
    return only


WHOLE = {
    "nvidia.com/gpu": "gpu.nvidia.com",
    "volcano.sh/vgpu-number": "gpu.nvidia.com",
    "nvidia.com/mig-1g.10gb": "mig.nvidia.com",
    "amd.com/gpu": "gpu.amd.com",
    "gpu.intel.com/i915": "gpu.intel.com",
    "gpu.intel.com/xe": "gpu.intel.com",
    "habana.ai/gaudi": "gaudi.intel.com",
    "cambricon.com/mlu": "mlu.cambricon.com",
    "cambricon.com/vmlu": "mlu.cambricon.com",
    "hygon.com/dcunum": "dcu.hygon.com",
    "metax-tech.com/gpu": "gpu.metax-tech.com",
    "metax-tech.com/sgpu": "gpu.metax-tech.com",
    "enflame.com/gcu": "gcu.enflame.com",
    "mthreads.com/vgpu": "gpu.mthreads.com",
    "kunlunxin.com/xpu": "xpu.kunlunxin.com",
    "kunlunxin.com/vxpu": "xpu.kunlunxin.com",
    "vastaitech.com/va": "va.vastaitech.com",
    "birentech.com/gpu": "gpu.birentech.com",
    "iluvatar.com/gpu": "gpu.iluvatar.com",
    "iluvatar.ai/BI-V150-vgpu": "gpu.iluvatar.com",
    "huawei.com/Ascend910B3": "npu.ascend.com",
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_devices(name):
    exactly = request({name: "3"})["exactly"]
    assert exactly["deviceClassName"] == WHOLE[name]
    assert (exactly["allocationMode"], exactly["count"]) == ("ExactCount", 3)
    assert "capacity" not in exactly


SHARES = {
    "hami": (
        {"nvidia.com/gpu": 2, "nvidia.com/gpumem": 8000, "nvidia.com/gpucores": 30},
        HAMI, 2, 8000 * MIB, 30,
    ),
    "hami, no count": ({"nvidia.com/gpumem": "8000"}, HAMI, 1, 8000 * MIB, 0),
    "hami, cores only": ({"nvidia.com/gpu": 1, "nvidia.com/gpucores": 50}, HAMI, 1, None, 50),
    "hami, all": ({"nvidia.com/gpu": 1, "nvidia.com/gpumem-percentage": 100}, HAMI, 1, None, 0),
    "volcano": (
        {"volcano.sh/vgpu-number": 1, "volcano.sh/vgpu-memory": 1024, "volcano.sh/vgpu-cores": 5},
        HAMI, 1, GIB, 5,
    ),
    "amd": (
        {"amd.com/gpu": 1, "amd.com/gpumem": 49152, "amd.com/gpucores": 25},
        "gpu.amd.com", 1, 48 * GIB, 25,
    ),
    "cambricon": (
        {"cambricon.com/vmlu": 1, "cambricon.com/mlu.smlu.vmemory": 20, "cambricon.com/mlu.smlu.vcore": 10},
        "mlu.cambricon.com", 1, 5 * GIB, 10,
    ),
    "hygon": (
        {"hygon.com/dcunum": 1, "hygon.com/dcumem": 2000, "hygon.com/dcucores": 60},
        "dcu.hygon.com", 1, 2000 * MIB, 60,
    ),
    "metax": (
        {"metax-tech.com/sgpu": 1, "metax-tech.com/vmemory": 4, "metax-tech.com/vcore": 60},
        "gpu.metax-tech.com", 1, 4 * GIB, 60,
    ),
    "enflame, no count": (
        {"enflame.com/gcu-memory": 20480, "enflame.com/gcu-core": 40},
        "gcu.enflame.com", 1, 20 * GIB, 40,
    ),
    "mthreads": (
        {"mthreads.com/vgpu": 1, "mthreads.com/sgpu-memory": 32, "mthreads.com/sgpu-core": 8},
        "gpu.mthreads.com", 1, 16 * GIB, 50,
    ),
    "mthreads, rounded up": (
        {"mthreads.com/vgpu": 1, "mthreads.com/sgpu-core": 1}, "gpu.mthreads.com", 1, None, 7,
    ),
    "kunlunxin": (
        {"kunlunxin.com/vxpu": 1, "kunlunxin.com/vxpu-memory": 24576},
        "xpu.kunlunxin.com", 1, 24 * GIB, None,
    ),
    "iluvatar": (
        {"iluvatar.ai/MR-V100-vgpu": 1, "iluvatar.ai/MR-V100.vMem": 64, "iluvatar.ai/MR-V100.vCore": 50},
        "gpu.iluvatar.com", 1, 16 * GIB, 50,
    ),
    "ascend": (
        {"huawei.com/Ascend310P": 1, "huawei.com/Ascend310P-memory": "8192", "huawei.com/Ascend310P-core": 50},
        "hami-vnpu-core.project-hami.io", 1, 8 * GIB, 50,
    ),
    "more cores than all": ({"nvidia.com/gpu": 1, "nvidia.com/gpucores": 300}, HAMI, 1, None, 100),
}  # fmt: skip


@pytest.mark.parametrize("case", SHARES)
def test_parts_of_devices(case):
    limits, name, count, memory, cores = SHARES[case]
    exactly = request(limits)["exactly"]
    assert (exactly["deviceClassName"], exactly["count"]) == (name, count)
    expected = {
        "memory": None if memory is None else str(memory),
        "cores": None if cores is None else str(cores),
    }
    assert exactly["capacity"]["requests"] == {k: v for k, v in expected.items() if v is not None}


def test_a_percentage_of_unknown_cards_has_an_alternative_for_each_size():
    found = request(
        {"nvidia.com/gpu": 2, "nvidia.com/gpumem-percentage": 50, "nvidia.com/gpucores": 20}
    )
    alternatives = found["firstAvailable"]
    assert len(alternatives) == len(USUAL_STEPS) == 8
    for step, one in zip(USUAL_STEPS, alternatives, strict=True):
        assert (one["deviceClassName"], one["count"]) == (HAMI, 2)
        assert one["capacity"]["requests"] == {"memory": str(step // 2 // MIB * MIB), "cores": "20"}
        assert f"quantity('{step}')" in one["selectors"][0]["cel"]["expression"]
    assert "compareTo" in alternatives[-1]["selectors"][0]["cel"]["expression"]
    assert " < 0" not in alternatives[-1]["selectors"][0]["cel"]["expression"]


def test_a_percentage_of_known_cards_is_exact():
    sizes = CardSizes(by_kind={"nvidia.com/gpu": (81559 * MIB,)})
    found = request({"nvidia.com/gpumem-percentage": 30}, sizes=sizes)
    assert found["exactly"]["capacity"]["requests"]["memory"] == str(81559 * 30 // 100 * MIB)


def test_a_percentage_of_two_sizes_of_card():
    sizes = CardSizes(by_kind={"nvidia.com/gpu": (80 * GIB, 40 * GIB, 80 * GIB)})
    first, second = request({"volcano.sh/vgpu-memory-percentage": 25}, sizes=sizes)[
        "firstAvailable"
    ]
    assert first["capacity"]["requests"]["memory"] == str(10 * GIB)
    assert second["capacity"]["requests"]["memory"] == str(20 * GIB)


def test_an_amount_wins_over_a_percentage():
    found = request({"nvidia.com/gpumem": 100, "nvidia.com/gpumem-percentage": 50})
    assert found["exactly"]["capacity"]["requests"]["memory"] == str(100 * MIB)


def test_too_many_sizes_of_card():
    sizes = CardSizes(by_kind={"nvidia.com/gpu": tuple(i * GIB for i in range(1, 10))})
    with pytest.raises(InvalidManifestError, match="9 sizes of card"):
        request({"nvidia.com/gpumem-percentage": 25}, sizes=sizes)


def test_the_chip_and_the_profile_select():
    (chip,) = request({"huawei.com/Ascend910B3": 1})["exactly"]["selectors"]
    assert "contains('910B3')" in chip["cel"]["expression"]
    (profile,) = request({"nvidia.com/mig-1g.10gb.me": 1})["exactly"]["selectors"]
    assert profile["cel"]["expression"] == (
        "device.attributes['gpu.nvidia.com'].profile == '1g.10gb+me'"
    )
    assert "selectors" not in request({"huawei.com/Ascend910C": 2})["exactly"]


def test_hamis_annotations_select():
    annotations = {
        "nvidia.com/use-gpuuuid": "GPU-1, GPU-2",
        "nvidia.com/nouse-gputype": "1080,o'ne",
        "nvidia.com/use-gputype": " ,",
    }
    templates, _ = converted(pod(container({"nvidia.com/gpu": 1}), annotations=annotations))
    (one,) = templates.values()
    selectors = one["spec"]["spec"]["devices"]["requests"][0]["exactly"]["selectors"]
    product = "device.attributes['gpu.nvidia.com'].productName.upperAscii()"
    assert [s["cel"]["expression"] for s in selectors] == [
        "device.attributes['gpu.nvidia.com'].uuid in ['GPU-1', 'GPU-2']",
        f"!(['1080', 'O\\'NE'].exists(word, {product}.contains(word)))",
    ]


WORKLOADS = {
    "Pod": ("v1", ()),
    "Deployment": ("apps/v1", ("spec", "template")),
    "StatefulSet": ("apps/v1", ("spec", "template")),
    "DaemonSet": ("apps/v1", ("spec", "template")),
    "ReplicaSet": ("apps/v1", ("spec", "template")),
    "Job": ("batch/v1", ("spec", "template")),
    "CronJob": ("batch/v1", ("spec", "jobTemplate", "spec", "template")),
    "ReplicationController": ("v1", ("spec", "template")),
    "PodTemplate": ("v1", ("template",)),
}


def workload(kind, spec, name="w"):
    version, path = WORKLOADS[kind]
    inner = {"spec": spec}
    for key in reversed(path):
        inner = {key: inner}
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": "ml"},
        **inner,
    }


def pod_spec(value):
    for key in WORKLOADS[value["kind"]][1]:
        value = value[key]
    return value["spec"]


@pytest.mark.parametrize("kind", WORKLOADS)
def test_every_workload(kind):
    before = workload(
        kind, {"hostIPC": True, "containers": [container({"nvidia.com/gpu": 1, "cpu": 2})]}
    )
    kept = copy.deepcopy(before)
    templates, (after,) = converted(before)
    assert before == kept
    spec = pod_spec(after)
    assert spec["containers"][0]["resources"] == {
        "limits": {"cpu": 2},
        "claims": [{"name": "main-gpu"}],
    }
    assert spec["resourceClaims"] == [
        {"name": "main-gpu", "resourceClaimTemplateName": "w-main-gpu"}
    ]
    assert templates["w-main-gpu"]["metadata"] == {"name": "w-main-gpu", "namespace": "ml"}
    assert list(spec) == ["hostIPC", "containers", "resourceClaims"]


def test_templates_come_before_what_uses_them():
    found = convert_objects([pod(container({"amd.com/gpu": 1}))]).objects
    assert [o["kind"] for o in found] == [TEMPLATE, "Pod"]


@pytest.mark.parametrize(
    "value",
    [
        {"apiVersion": "batch.volcano.sh/v1alpha1", "kind": "Job", "spec": {"tasks": []}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "spec": None},
        {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": "none"}},
        {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [None, 3, {"resources": []}]}},
        {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"resources": {"limits": None}}]}},
        {"apiVersion": "v1", "kind": "Node", "status": {"capacity": {"nvidia.com/gpu": 8}}},
        {"kind": "Pod"}, {"apiVersion": 1, "kind": ["Pod"]}, [], "text", None,
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_understood_stays(value):
    result = convert_objects([value])
    assert result.objects == (value,)
    assert result.changed == 0


def test_devices_in_other_kinds_are_named_in_a_note():
    custom = {
        "apiVersion": "example.com/v1", "kind": "Train", "metadata": {"name": "t"},
        "spec": {"worker": {"containers": [container({"nvidia.com/gpu": 8})]}},
    }  # fmt: skip
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "spec": {"hard": {"requests.amd.com/gpu": 4}},
    }
    result = convert_objects([custom, quota])
    assert result.objects == (custom, quota)
    assert [note.partition(";")[0] for note in result.notes] == [
        "object 1: Train t: nvidia.com/gpu stays as it is",
        "object 2: ResourceQuota: requests.amd.com/gpu stays as it is",
    ]


def test_unknown_resources_of_a_converted_container_stay_with_a_note():
    result = convert_objects([pod(container({"nvidia.com/gpu": 1, "nvidia.com/priority": 1}))])
    assert result.objects[1]["spec"]["containers"][0]["resources"]["limits"] == {
        "nvidia.com/priority": 1
    }
    assert "nvidia.com/priority" in result.notes[0]


LIMITS = {"nvidia.com/gpu": 1, "nvidia.com/gpumem": 4000}


class TestInitContainers:
    def claims(self, value):
        spec = value["spec"]
        return [
            [claim["name"] for claim in c["resources"]["claims"]]
            for c in (*spec["initContainers"], *spec["containers"])
        ]

    def test_the_same_request_uses_the_containers_claim(self):
        both = pod(container(LIMITS), init=[container(LIMITS, "warm")])
        templates, (after,) = converted(both)
        assert self.claims(after) == [["main-gpu"], ["main-gpu"]]
        assert len(templates) == 1

    def test_another_request_has_a_claim_of_its_own(self):
        both = pod(container({"nvidia.com/gpu": 2}), init=[container(LIMITS, "warm")])
        templates, (after,) = converted(both)
        assert self.claims(after) == [["warm-gpu"], ["main-gpu"]]
        capacity = templates["p-warm-gpu"]["spec"]["spec"]["devices"]["requests"][0]["exactly"][
            "capacity"
        ]
        assert capacity["requests"]["memory"] == str(4000 * MIB)

    def test_one_without_containers_that_ask(self):
        both = pod({"name": "main"}, init=[container(LIMITS, "a"), container(LIMITS, "b")])
        _, (after,) = converted(both)
        init = after["spec"]["initContainers"]
        assert [c["resources"]["claims"] for c in init] == [[{"name": "a-gpu"}]] * 2
        assert "resources" not in after["spec"]["containers"][0]

    def test_a_sidecar_runs_beside_the_containers(self):
        side = container(LIMITS, "side", restartPolicy="Always")
        templates, (after,) = converted(pod(container(LIMITS), init=[side]))
        assert self.claims(after) == [["side-gpu"], ["main-gpu"]]
        assert len(templates) == 2


def test_requests_count_where_there_are_no_limits():
    resources = {
        "requests": {"nvidia.com/gpu": "2", "cpu": 1},
        "limits": {"nvidia.com/gpumem": 100},
    }
    templates, (after,) = converted(pod({"name": "main", "resources": resources}))
    exactly = templates["p-main-gpu"]["spec"]["spec"]["devices"]["requests"][0]["exactly"]
    assert (exactly["count"], exactly["capacity"]["requests"]["memory"]) == (2, str(100 * MIB))
    assert after["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": 1}, "claims": [{"name": "main-gpu"}],
    }  # fmt: skip


def test_zero_devices_are_none():
    templates, (after,) = converted(pod(container({"nvidia.com/gpu": 0, "cpu": 1})))
    assert not templates
    assert after["spec"] == pod(container({"cpu": 1}))["spec"]


def test_two_kinds_of_device_in_one_container_are_two_requests_of_one_claim():
    templates, (after,) = converted(
        pod(container({"nvidia.com/gpu": 1, "nvidia.com/mig-1g.10gb": 2, "amd.com/gpu": 1}))
    )
    (template,) = templates.values()
    names = [r["name"] for r in template["spec"]["spec"]["devices"]["requests"]]
    assert names == ["gpu", "mig", "gpu-2"]
    assert after["spec"]["resourceClaims"][0]["name"] == "main-devices"


def test_existing_claims_stay():
    value = pod(
        container({"nvidia.com/gpu": 1}),
        resourceClaims=[{"name": "main-gpu", "resourceClaimName": "c"}],
    )
    value["spec"]["containers"][0]["resources"]["claims"] = [{"name": "main-gpu"}]
    _, (after,) = converted(value)
    assert [c["name"] for c in after["spec"]["resourceClaims"]] == ["main-gpu", "main-gpu-2"]
    assert after["spec"]["containers"][0]["resources"]["claims"] == [
        {"name": "main-gpu"}, {"name": "main-gpu-2"},
    ]  # fmt: skip


def test_templates_do_not_clash():
    other = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": TEMPLATE,
        "metadata": {"name": "p-main-gpu"},
        "spec": {},
    }
    one, two = pod(container({"nvidia.com/gpu": 1})), pod(container({"amd.com/gpu": 1}))
    same = pod(container({"nvidia.com/gpu": 1}))
    found = convert_objects([one, two, same, other]).objects
    names = [o["metadata"]["name"] for o in found if o["kind"] == TEMPLATE]
    assert names == ["p-main-gpu-2", "p-main-gpu-3", "p-main-gpu"]
    used = [
        o["spec"]["resourceClaims"][0]["resourceClaimTemplateName"]
        for o in found
        if o["kind"] == "Pod"
    ]
    assert used == ["p-main-gpu-2", "p-main-gpu-3", "p-main-gpu-2"]


def test_lists():
    items = [pod(container({"nvidia.com/gpu": 1})), {"apiVersion": "v1", "kind": "Service"}]
    (found,) = convert_objects(
        [{"apiVersion": "v1", "kind": "List", "items": items, "x": 1}]
    ).objects
    assert [o["kind"] for o in found["items"]] == [TEMPLATE, "Pod", "Service"]
    assert list(found) == ["apiVersion", "kind", "items", "x"]
    outside, pods = convert_objects(
        [{"apiVersion": "v1", "kind": "PodList", "items": items[:1]}]
    ).objects
    assert outside["kind"] == TEMPLATE
    assert [o["kind"] for o in pods["items"]] == ["Pod"]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"nvidia.com/gpu": "1.5"}, "container main: nvidia.com/gpu: '1.5' is not a whole number"),
        ({"nvidia.com/gpu": -1}, "not a whole number"),
        ({"nvidia.com/gpu": "many"}, "is no quantity"),
        ({"nvidia.com/gpu": None}, "is no quantity"),
        ({"nvidia.com/gpumem-percentage": 101}, "101 is more than 100 percent"),
        ({"nvidia.com/gpu": 33}, "33 devices are more than the 32 of one claim"),
    ],
    ids=str,
)
def test_requests_that_are_malformed(limits, words):
    with pytest.raises(InvalidManifestError, match=words) as caught:
        convert_objects([pod(container(limits))])
    assert str(caught.value).startswith("object 1: Pod p: ")
    assert caught.value.exit_code == 5


names = st.sampled_from([*WHOLE, "nvidia.com/gpumem", "nvidia.com/gpucores", "nvidia.com/gpumem-percentage",
                         "cpu", "example.com/thing", "huawei.com/Ascend910B3-memory"])  # fmt: skip
limits_strategy = st.dictionaries(names, st.integers(0, 4), max_size=4)
containers_strategy = st.lists(
    st.builds(
        lambda limits, requests, always: {
            "resources": {"limits": limits, "requests": requests},
            **({"restartPolicy": "Always"} if always else {}),
        },
        limits_strategy, limits_strategy, st.booleans(),
    ),
    min_size=1, max_size=3,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(WORKLOADS)), containers_strategy, containers_strategy)
def test_converting_twice_is_converting_once(kind, containers, init):
    spec = {"containers": [{"name": f"c{i}", **c} for i, c in enumerate(containers)],
            "initContainers": [{"name": f"i{i}", **c} for i, c in enumerate(init)]}  # fmt: skip
    text = yaml.safe_dump(workload(kind, spec), sort_keys=False)
    once, first = convert_text(text)
    twice, second = convert_text(once)
    assert twice == once
    assert second.changed == 0
    if not first.changed:
        assert once == text


@settings(max_examples=100, deadline=None)
@given(containers_strategy, containers_strategy)
def test_claims_are_whole(containers, init):
    """Every claim used is of the Pod, every claim of the Pod has its template, and counts agree."""
    value = pod(*({"name": f"c{i}", **c} for i, c in enumerate(containers)),
                init=[{"name": f"i{i}", **c} for i, c in enumerate(init)])  # fmt: skip
    templates, (after,) = converted(value)
    spec = after["spec"]
    entries = {c["name"]: c["resourceClaimTemplateName"] for c in spec.get("resourceClaims", ())}
    used = {claim["name"] for c in (*spec["containers"], *spec["initContainers"])
            for claim in c["resources"].get("claims", ())}  # fmt: skip
    assert used == set(entries)
    assert set(entries.values()) == set(templates)
    for c in (*spec["containers"], *spec["initContainers"]):
        for section in ("limits", "requests"):
            assert set(c["resources"].get(section, ())) <= {"cpu", "example.com/thing"}


def test_text_without_devices_is_kept_to_the_letter():
    text = "kind: ConfigMap   # c\n# end\n---\n{a: 1}\n"
    assert convert_text(text)[0] == text
