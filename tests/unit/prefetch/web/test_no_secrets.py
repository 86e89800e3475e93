"""Promise 6: secrets appear in no log, metric, status page or error, wherever they come from."""

import io
import json
import logging
import socket
import warnings

import pytest

from modelpack.errors import ModelpackError
from modelpack.prefetch import logs
from modelpack.prefetch.notify import Notifier
from modelpack.prefetch.status import ConfigurationStatus, RuntimeStatus, Stage
from modelpack.prefetch.web.client import ask, fetch_status
from tests.support.inprocess import InProcess
from tests.support.statuses import model, status
from tests.support.webdaemon import Daemon, request

PASSWORD = "hunter2hunter2"
FORMS = {
    "in a URL": f"https://user:{PASSWORD}@registry.example/v2/: connection refused",
    "in a query": f"registry.example/m:v1: https://blobs.example/x?X-Amz-Signature={PASSWORD}: 403",
    "in a header": f"registry.example/m:v1: answered 401 to Authorization: Bearer {PASSWORD}",
    "in a reference": f"user:{PASSWORD}@registry.example/m:v1",
    "in a reference's query": f"registry.example/m:v1?token={PASSWORD}",
    "in a document": f'the registry said {{"token": "{PASSWORD}"}}',
    "in a setting": f"proxy: password={PASSWORD}",
}


def leaky(text):
    """A status with the text wherever a text can be."""
    return status(
        model(text, Stage.DOWNLOADING, reference=text, reason=text, timings={text: 1.0}),
        model(f"{text} 2", Stage.FAILED, reference=text, reason=text, digest=text, candidate=text),
        node=text,
        version=text,
        runtime=RuntimeStatus(kind=text, reachable=False, reason=text),
        configuration=ConfigurationStatus(path=text, loaded_at=1.0, generation=1, error=text),
    )


class LeakyControl:
    """Says the text whatever happens."""

    def __init__(self, text):
        self.text = text

    def hold(self, _name):
        return self.text

    def release(self, _name):
        raise ModelpackError(self.text)

    def scrub(self, _name):
        raise RuntimeError(self.text)


@pytest.fixture
def log():
    """The daemon's log, alone."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    with warnings.catch_warnings():
        logs.configure(level="debug", stream=stream)
        yield stream
        logging.captureWarnings(capture=False)
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_no_secret_gets_out(tmp_path, log, capsys, text):
    daemon = Daemon(tmp_path)
    daemon.status, daemon.control = leaky(text), LeakyControl(text)
    said = []
    with daemon.serve() as endpoints:
        for path in ("/", "/v1/status", "/metrics", "/healthz", "/readyz"):
            code, headers, body = request(endpoints.url, path=path)
            assert code in {200, 503}
            said += [body.decode(), str(headers)]
        said.append(json.dumps(fetch_status(daemon.socket)))
        said.append(ask(daemon.socket, "hold", "m"))
        for verb in ("release", "scrub"):
            with pytest.raises(ModelpackError) as caught:
                ask(daemon.socket, verb, "m")
            said.append(str(caught.value))
        command = InProcess(capsys)
        for arguments in (
            ["status", "--socket", daemon.socket],
            ["status", "--socket", daemon.socket, "--json"],
            ["status", "--url", endpoints.url],
            ["hold", "m", "--socket", daemon.socket],
            ["release", "m", "--socket", daemon.socket],
        ):
            done = command.run("daemon", *arguments)
            assert done.stdout or done.stderr
            said += [done.stdout, done.stderr]
    logger = logging.getLogger("modelpack.prefetch.test")
    logger.error("%s", text, extra={"model": text, "reference": text, "digest": text})
    logger.error("x", exc_info=ModelpackError(text))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        Notifier(str(tmp_path / "notify")).status(text)
        said.append(manager.recv(4096).decode())
    assert log.getvalue().count("\n") >= 4
    said.append(log.getvalue())
    assert [one for one in said if PASSWORD in one] == []
    # and what is not secret is still there
    assert "registry" in said[2] or "proxy" in said[2]
