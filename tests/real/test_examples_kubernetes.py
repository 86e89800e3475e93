"""examples/kubernetes: what kubectl reads and renders, and what it says of the daemon."""

import json
import shlex
import subprocess
from urllib.parse import urlsplit

import pytest
import yaml

from tests.cdi.test_kube_oracle import ORACLE
from tests.real.test_k8s_kubectl import is_within
from tests.support import programs
from tests.support.command import Command
from tests.support.manifests import EXAMPLES, container_of, only, pod_of, rendered, write_volumes

pytestmark = [pytest.mark.real("kubectl"), pytest.mark.root]

RENDERED = ["base", "overlays/fleet"]
# What kube-oracle knows.
JUDGED = {"DaemonSet", "Pod", "ResourceClaimTemplate"}


@pytest.fixture(scope="module", params=RENDERED)
def objects(request):
    return rendered(request.param)


def test_kubectl_keeps_every_field_of_the_daemon_set(objects):
    daemons = only(objects, "DaemonSet")
    image = container_of(objects)["image"]
    printed = programs.run(
        "kubectl", "set", "image", "--local", "-f", "-", f"*={image}", "-o", "yaml",
        input=yaml.safe_dump(daemons).replace(image, "other"),
    ).stdout  # fmt: skip
    assert is_within(daemons, yaml.safe_load(printed))


@pytest.mark.skipif(not ORACLE.exists(), reason="needs kube-oracle, built with Go")
def test_kubernetes_finds_no_fault(objects):
    texts = [path.read_text() for path in (EXAMPLES / "pods").iterdir()]
    pods = [one for text in texts for one in yaml.safe_load_all(text)]
    judged = [one for one in [*objects, *pods] if one["kind"] in JUDGED]
    done = subprocess.run(
        [ORACLE], input=yaml.safe_dump_all(judged), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["errors"] for line in done.stdout.splitlines()] == [[]] * len(judged)


def test_the_daemon_takes_the_configuration(objects, tmp_path):
    root = write_volumes(objects, tmp_path / "pod")
    config = root / "etc/modelpack/daemon.d"
    for file in config.iterdir():
        file.write_text(file.read_text().replace(": /etc/", f": {root}/etc/"))
    command = Command(tmp_path / "home", {"MODELPACK_NODE_NAME": "node-1"})
    said = command.json("daemon", "--config", config, "--check")
    assert said["node"] == "node-1"
    assert "chat" in said["models"]
    policy = root / "etc/modelpack/policy/policy.yaml"
    assert said["policy"] == (str(policy) if policy.exists() else None)
    if policy.exists():
        done = command.run("policy", "check", policy)
        assert done.returncode == 0, done.stderr
        # the labels that its Pods have choose models
        assert "embeddings" in said["models"]


def test_the_daemon_has_no_more_rights_than_it_needs(objects):
    assert {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}.isdisjoint(
        one["kind"] for one in objects
    )
    assert only(objects, "ServiceAccount")["automountServiceAccountToken"] is False
    pod, container = pod_of(objects), container_of(objects)
    assert pod["automountServiceAccountToken"] is False
    assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(pod)
    rights = container["securityContext"]
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
    of_node = {v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v}
    assert of_node == {"/var/lib/modelpack", "/var/lib/containerd", "/run/containerd"}


def test_the_daemon_runs_everywhere_and_is_not_restarted_for_being_busy(objects):
    pod, container = pod_of(objects), container_of(objects)
    assert pod["priorityClassName"] == "system-node-critical"
    assert pod["tolerations"] == [{"operator": "Exists"}]
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness")}
    assert {probe["path"] for probe in probes.values()} == {"/healthz"}
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_its_port_is_where_everybody_looks_for_it(objects):
    (port,) = container_of(objects)["ports"]
    maps = [one for one in objects if one["metadata"]["name"].startswith("modelpack-daemon")]
    config = yaml.safe_load(only(maps, "ConfigMap")["data"]["daemon.yaml"])
    assert config["listen"].endswith(f":{port['containerPort']}")
    (rule,) = only(objects, "NetworkPolicy")["spec"]["ingress"]
    assert [one["port"] for one in rule["ports"]] == [port["name"]]
    for monitor in [one for one in objects if one["kind"] == "PodMonitor"]:
        assert monitor["spec"]["podMetricsEndpoints"][0]["port"] == port["name"]
        template = only(objects, "DaemonSet")["spec"]["template"]
        assert (
            monitor["spec"]["selector"]["matchLabels"].items()
            <= template["metadata"]["labels"].items()
        )


def test_the_mirror_is_the_service_on_the_node():
    directory = EXAMPLES / "components/dragonfly"
    service = yaml.safe_load((directory / "service.yaml").read_text())
    mirrors = yaml.safe_load((directory / "mirrors.yaml").read_text())["mirrors"]
    ((url,),) = mirrors.values()
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    assert urlsplit(url).hostname == f"{name}.{namespace}.svc"
    assert urlsplit(url).port == service["spec"]["ports"][0]["port"]
    (patch,) = yaml.safe_load((directory / "kustomization.yaml").read_text())["patches"]
    (operation,) = yaml.safe_load(patch["patch"])
    assert operation["value"]["ports"][0]["port"] == urlsplit(url).port


@pytest.mark.parametrize("name", ["device-plugin.yaml", "dra.yaml"])
def test_the_pods_are_what_render_prints(name, tmp_path):
    text = (EXAMPLES / "pods" / name).read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("#   modelpack ")]
    done = Command(tmp_path / "home").run(*shlex.split(line)[2:])
    assert done.returncode == 0, done.stderr
    body = "\n".join(one for one in text.splitlines() if not one.startswith("#"))
    assert list(yaml.safe_load_all(body)) == list(yaml.safe_load_all(done.stdout))
