"""examples/kubernetes as kubectl renders it, and a DaemonSet's configuration as a Pod gets it.

objects = rendered("base")
config = write_configuration(objects, tmp_path)
"""

from pathlib import Path
from typing import Any

import yaml

from tests.support import programs

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/kubernetes"

Object = dict[str, Any]


def rendered(name: str) -> list[Object]:
    """Return what ``kubectl kustomize`` makes of a directory of the examples."""
    text = programs.run("kubectl", "kustomize", EXAMPLES / name).stdout
    return list(yaml.safe_load_all(text))


def only(objects: list[Object], kind: str) -> Object:
    """Return the one object of a kind."""
    (found,) = [one for one in objects if one["kind"] == kind]
    return found


def pod_of(objects: list[Object]) -> Object:
    """Return the specification of the DaemonSet's Pods."""
    return only(objects, "DaemonSet")["spec"]["template"]["spec"]


def container_of(objects: list[Object]) -> Object:
    """Return their only container."""
    (container,) = pod_of(objects)["containers"]
    return container


def write_volumes(objects: list[Object], root: Path) -> Path:
    """Write below ``root`` what a kubelet mounts of ConfigMaps and labels; return ``root``."""
    maps = {one["metadata"]["name"]: one["data"] for one in objects if one["kind"] == "ConfigMap"}
    labels = only(objects, "DaemonSet")["spec"]["template"]["metadata"]["labels"]
    volumes = {volume["name"]: volume for volume in pod_of(objects)["volumes"]}
    for mount in container_of(objects)["volumeMounts"]:
        volume = volumes[mount["name"]]
        place = root / mount["mountPath"].lstrip("/")
        if "configMap" in volume:
            place.mkdir(parents=True)
            for name, text in maps[volume["configMap"]["name"]].items():
                (place / name).write_text(text)
        elif "downwardAPI" in volume:
            place.mkdir(parents=True)
            text = "".join(f'{key}="{value}"\n' for key, value in labels.items())
            (place / "labels").write_text(text)
    return root
