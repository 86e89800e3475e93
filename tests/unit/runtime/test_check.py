"""Which containerds, and which images, an import refuses before anything moves."""

import json
from dataclasses import dataclass

import pytest

from modelpack.errors import FormatError, NetworkError, PolicyError, UsageError
from modelpack.reference import parse_reference
from modelpack.registry.credentials import Credentials
from modelpack.runtime import source
from modelpack.runtime.client import Containerd
from modelpack.runtime.containerd import check_runtime
from modelpack.runtime.cri import CriImages
from tests.support.runtimeserver import Failure, RuntimeServer

REFERENCE = parse_reference("r.example/team/model:v1")
GOOD = {
    "Version": {"version": "2.1.9~ds1"},
    "Plugins": {"plugins": [{"id": "native"}, {"id": "overlayfs"}]},
    "ImageFsInfo": {
        "image_filesystems": [
            {"fs_id": {"mountpoint": "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs"}}
        ]
    },
}


@pytest.fixture
def server(tmp_path):
    with RuntimeServer(tmp_path / "socket", patience=0.1) as running:
        running.answers = {method: [answer] for method, answer in GOOD.items()}
        yield running


def check(server, snapshotter="overlayfs"):
    with server.connect() as connection:
        client = Containerd(connection=connection, namespace="k8s.io", snapshotter=snapshotter)
        check_runtime(client, CriImages(connection))


def test_a_stock_containerd_is_accepted(server):
    check(server)
    assert {headers["containerd-namespace"] for name, _, headers in server.calls[:2]} == {"k8s.io"}


@pytest.mark.parametrize(
    ("method", "answer", "message"),
    [
        ("Version", {"version": "1.7.27"}, "need 2.1 or later"),
        ("Version", {"version": "v2.0.5"}, "need 2.1 or later"),
        ("Plugins", {"plugins": [{"id": "native"}]}, "no snapshotter 'overlayfs'; it has native"),
        (
            "Plugins",
            {"plugins": [{"id": "overlayfs", "init_err": {"message": "no kernel support"}}]},
            "it has none",
        ),
        (
            "ImageFsInfo",
            {
                "image_filesystems": [
                    {"fs_id": {"mountpoint": "/x/io.containerd.snapshotter.v1.zfs"}}
                ]
            },
            "in the snapshotter zfs, not in overlayfs; name it with --snapshotter",
        ),
        (
            "ImageFsInfo",
            Failure("UNIMPLEMENTED", "unknown service runtime.v1.ImageService"),
            "without CRI.*enable it",
        ),
    ],
)
def test_an_unfit_containerd_is_refused(method, answer, message, server):
    server.answers[method] = [answer]
    with pytest.raises(UsageError, match=message):
        check(server)


@pytest.mark.parametrize("version", ["2.1.0", "v2.1.0-rc.0", "2.10.1", "3.0", "dev"])
def test_versions_that_will_do(version, server):
    server.answers["Version"] = [{"version": version}]
    check(server)


def test_a_snapshotter_at_a_path_of_its_own_says_nothing(server):
    server.answers["ImageFsInfo"] = [
        {"image_filesystems": [{"fs_id": {"mountpoint": "/mnt/fast-disk"}}]}
    ]
    check(server)


@pytest.mark.parametrize(
    ("details", "error"),
    [
        ("image verifier bindir blocked pull of x with digest y for reason: no", PolicyError),
        ("failed to resolve image: dial tcp: connection refused", NetworkError),
    ],
)
def test_why_cri_did_not_take_an_image(details, error, server):
    server.answers["PullImage"] = [Failure("UNKNOWN", details)]
    with server.connect() as connection, pytest.raises(error, match=details[-10:]):
        CriImages(connection).pull("r.example/x/y:v1", None)


@pytest.mark.parametrize(
    ("login", "expected"),
    [
        (None, ("", "", "")),
        (Credentials(username="u", password="p"), ("u", "p", "")),
        (Credentials(identity_token="t"), ("", "", "t")),
    ],
)
def test_credentials_are_passed_on(login, expected, server):
    server.answers["PullImage"] = [{"image_ref": "sha256:x"}]
    with server.connect() as connection:
        assert CriImages(connection).pull("r.example/x/y:v1", login) == "sha256:x"
    request = server.calls[-1][1]
    auth = request.auth
    assert (auth.username, auth.password, auth.identity_token) == expected
    assert request.HasField("auth") == (login is not None)


@dataclass(frozen=True)
class Machine:
    machine: str


@pytest.mark.parametrize(
    ("platform", "machine"),
    [
        (("linux", "amd64"), "x86_64"),
        (("linux", "arm64"), "aarch64"),
        (("linux", "s390x"), "s390x"),
    ],
)
def test_an_image_for_this_machine(platform, machine, monkeypatch):
    monkeypatch.setattr(source.os, "uname", lambda: Machine(machine))
    source.check_platform(REFERENCE, config_for(*platform))


@pytest.mark.parametrize(
    ("platform", "machine", "way_out"),
    [
        (("linux", "amd64"), "aarch64", "--platform linux/arm64"),
        (("linux", "arm64"), "x86_64", "--platform linux/amd64"),
        (("windows", "amd64"), "x86_64", "--platform linux/amd64"),
    ],
)
def test_an_image_for_another_machine_is_refused(platform, machine, way_out, monkeypatch):
    monkeypatch.setattr(source.os, "uname", lambda: Machine(machine))
    with pytest.raises(UsageError, match=way_out):
        source.check_platform(REFERENCE, config_for(*platform))


def test_a_config_without_a_platform_is_refused(monkeypatch):
    with pytest.raises(UsageError, match="None/None"):
        source.check_platform(REFERENCE, b"{}")
    with pytest.raises(FormatError):
        source.check_platform(REFERENCE, b"not JSON")


def config_for(system, architecture):
    return json.dumps({"os": system, "architecture": architecture}).encode()
