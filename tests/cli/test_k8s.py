"""modelpack k8s: what it prints, what it refuses."""

import json

import pytest
import yaml

from tests.support.cdicli import EXAMPLES, fails

POD = """\
apiVersion: v1
kind: Pod
metadata: {name: train}  # mine
spec:
  containers:
  - name: main
    image: i
    resources: {limits: {nvidia.com/gpu: 1, nvidia.com/gpumem-percentage: 50}}
"""
CONFIG = "kind: ConfigMap   # untouched\n"


def documents(text):
    return list(yaml.safe_load_all(text))


class TestRender:
    def test_dra(self, call):
        done = call(
            "k8s", "render", "r.example/m:1", "--device", "nvidia.com/gpu", "--count", "2",
            "--memory", "24Gi", "--cores", "30", "--as", "dra", "--image", "i", "--mount", "/models",
        )  # fmt: skip
        assert (done.code, done.err) == (0, "")
        assert [d["kind"] for d in documents(done.out)] == [
            "DeviceClass",
            "ResourceClaimTemplate",
            "Pod",
        ]
        exactly = documents(done.out)[1]["spec"]["spec"]["devices"]["requests"][0]["exactly"]
        assert exactly["capacity"]["requests"] == {"cores": "30", "memory": "24Gi"}

    def test_json(self, call):
        done = call("k8s", "render", "m", "--device", "amd.com/gpu", "--format", "json")
        found = json.loads(done.out)
        assert found["kind"] == "List"
        assert len(found["items"]) == 3
        done = call(
            "k8s",
            "render",
            "m",
            "--device",
            "amd.com/gpu",
            "--as",
            "device-plugin",
            "--format",
            "json",
        )
        assert json.loads(done.out)["kind"] == "Pod"

    def test_annotation(self, call):
        done = call(
            "k8s", "render", "m", "--device", "nvidia.com/gpu=3", "--memory", "8Gi",
            "--as", "cdi-annotation", "--claim", "job-7",
        )  # fmt: skip
        (pod,) = documents(done.out)
        assert pod["metadata"]["annotations"] == {
            "cdi.k8s.io/modelpack_m": "k8s.hami-core-gpu.project-hami.io/claim=job-7"
        }
        assert "note: run on the node first: modelpack cdi share --claim job-7 " in done.err

    def test_files(self, call, tmp_path):
        call("k8s", "render", "m", "--device", "amd.com/gpu", "-o", "out.yaml", "--no-device-class")
        assert [d["kind"] for d in documents((tmp_path / "out.yaml").read_text())] == [
            "ResourceClaimTemplate", "Pod",
        ]  # fmt: skip
        done = call("k8s", "render", "m", "--device", "amd.com/gpu", "-o", "none/out.yaml")
        fails(done, 1, "none/out.yaml cannot be written")

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--device", "gpu"], ["'gpu' is no kind of device", "nvidia.com/gpu"]),
            (["--device", "nvidia.com/gpu", "--memory", "24Gb"], ["'24Gb' is no amount"]),
            (["--device", "nvidia.com/gpu", "--mount", "models"], ["mount 'models'"]),
            (["--device", "nvidia.com/gpu", "--name", "A B"], ["name 'A B'"]),
            (["--device", "birentech.com/gpu", "--cores", "30"], ["a part of"]),
            (["--device", "nvidia.com/gpu=0"], ["name nvidia.com/gpu"]),
        ],
    )
    def test_bad_calls(self, call, arguments, words):
        fails(call("k8s", "render", "m", *arguments), 2, *words)

    @pytest.mark.parametrize(
        "arguments", [[], ["m"], ["m", "--device", "amd.com/gpu", "--as", "x"], ["m", "--device", "amd.com/gpu", "--count", "0"]]
    )  # fmt: skip
    def test_usage(self, call, arguments):
        assert call("k8s", "render", *arguments).code == 2


class TestConvert:
    def test_files_in_order(self, call, tmp_path):
        (tmp_path / "a.yaml").write_text(CONFIG)
        (tmp_path / "b.yaml").write_text(POD)
        done = call("k8s", "convert", "a.yaml", "b.yaml", "--device-classes")
        assert done.code == 0
        assert [d["kind"] for d in documents(done.out)] == [
            "DeviceClass", "ConfigMap", "ResourceClaimTemplate", "Pod",
        ]  # fmt: skip
        assert CONFIG in done.out
        assert "1 object converted" in done.err
        assert "note: b.yaml: document 1: Pod train: nvidia.com/gpumem-percentage" in done.err

    def test_converting_twice(self, call):
        once = call("k8s", "convert", "-", stdin=POD).out
        done = call("k8s", "convert", "-", stdin=once)
        assert done.out == once
        assert "0 objects converted" in done.err

    def test_known_cards(self, call, tmp_path):
        (tmp_path / "pod.yaml").write_text(POD)
        for option in (["--card-memory", "80Gi"], ["--inventory", EXAMPLES / "nvidia-h200.yaml"]):
            done = call("k8s", "convert", "pod.yaml", *option)
            assert "note" not in done.err
            request = documents(done.out)[0]["spec"]["spec"]["devices"]["requests"][0]
            half = {"--card-memory": 40 << 30, "--inventory": (141 << 30) // 2}[option[0]]
            assert request["exactly"]["capacity"]["requests"]["memory"] == str(half)

    def test_nothing_to_convert_is_the_same_text(self, call):
        text = "# c\na: 1\n---\n\n---\nb:   2\n"
        assert call("k8s", "convert", "-", stdin=text).out == text

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("a: [", ["standard input: line"]),
            ("a: 1\na: 2", ["'a' twice"]),
            (
                POD.replace("gpu: 1", "gpu: one"),
                ["standard input: document 1: Pod train", "container main", "'one'"],
            ),
        ],
    )
    def test_bad_manifests(self, call, text, words):
        fails(call("k8s", "convert", "-", stdin=text), 5, *words)

    def test_bad_calls(self, call, tmp_path):
        fails(call("k8s", "convert", "none.yaml"), 3, "none.yaml: no such file")
        (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
        fails(call("k8s", "convert", "latin.yaml"), 5, "latin.yaml: is not UTF-8")
        (tmp_path / "pod.yaml").write_text(POD)
        both = ("--card-memory", "1Gi", "--inventory", EXAMPLES / "smallest.yaml")
        fails(call("k8s", "convert", "pod.yaml", *both), 2, "--card-memory and --inventory")


class TestResourceSlice:
    def test_slices(self, call):
        done = call("k8s", "resourceslice", "--inventory", EXAMPLES / "nvidia-h200.yaml")
        assert (done.code, done.err) == (0, "")
        (found,) = documents(done.out)
        assert found["spec"]["nodeName"] == "gpu-01"
        assert [d["name"] for d in found["spec"]["devices"]] == ["gpu-0", "gpu-1"]

    def test_options(self, call):
        done = call(
            "k8s", "resourceslice", "--inventory", EXAMPLES / "mixed-nvidia-amd.yaml", "--node", "n2",
            "--generation", "4", "--shared", "--vendor", "nvidia", "--format", "json",
        )  # fmt: skip
        found = json.loads(done.out)
        assert found["spec"]["driver"] == "hami-core-gpu.project-hami.io"
        assert found["spec"]["pool"] == {"name": "n2", "generation": 4, "resourceSliceCount": 1}

    def test_bad_calls(self, call, tmp_path):
        fails(call("k8s", "resourceslice", "--inventory", "none.yaml"), 3, "none.yaml")
        fails(call("k8s", "resourceslice", "--root", tmp_path), 3, "no devices found")
        inventory = EXAMPLES / "nvidia-h200.yaml"
        fails(call("k8s", "resourceslice", "--inventory", inventory, "--node", "N 1"), 2, "'N 1'")
        done = call("k8s", "resourceslice", "--inventory", inventory, "--vendor", "amd")
        fails(done, 3, "no devices")
        (tmp_path / "unnamed.yaml").write_text(
            "devices: [{vendor: amd, index: 0, card: 1, render: 128}]"
        )
        fails(call("k8s", "resourceslice", "--inventory", "unnamed.yaml"), 2, "--node")
