"""The daemon as a process over a directory: what a node without containerd gets."""

import subprocess
import sys

import pytest

import modelpack
from tests.support.daemonprocess import DaemonProcess
from tests.support.models import copy_tree, write_files
from tests.support.samplemodel import digests_of
from tests.support.servers import wait_until

READER = "import sys; file = open(sys.argv[1], 'rb'); print('ready', flush=True); sys.stdin.read()"


@pytest.fixture
def daemon(published, tmp_path):
    runtime = {"kind": "directory", "path": str(tmp_path / "models")}
    models = [{"name": "m", "ref": published.reference}]
    with DaemonProcess(tmp_path / "daemon", models=models, runtime=runtime) as running:
        yield running


def test_a_model_comes_is_used_is_upgraded_and_goes(daemon, published, tmp_path):
    first = daemon.wait_for("m", stage="Ready")
    host, _, rest = published.reference.partition("/")
    link = tmp_path / "models/models" / host.replace(":", "@") / rest.replace(":", "@")
    assert digests_of(link) == digests_of(published.model)
    process = subprocess.Popen(
        [sys.executable, "-c", READER, str(link / "model.safetensors")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == "ready\n"
        daemon.wait_for("m", mounted=True)
        new = copy_tree(published.model, tmp_path / "new")
        write_files(new, {"config.json": b'{"model_type":"llama2"}'})
        second = modelpack.push(new, published.reference)
        daemon.ask("refresh", "m")
        daemon.wait_for("m", stage="Ready", digest=second.digest)
        assert digests_of(link) == digests_of(new)
        daemon.reload(models=[], watermarks={"high": "0%", "low": "0%"})
        used = tmp_path / "models/versions" / first["digest"].replace(":", "-")
        wait_until(lambda: not link.exists(), seconds=60)
        assert used.is_dir()
        process.stdin.close()
        process.wait(30)
    wait_until(lambda: not used.exists(), seconds=60)
