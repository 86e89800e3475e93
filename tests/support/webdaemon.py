"""The daemon's server over a status that a test may change, and plain requests to it.

with Daemon(tmp_path).serve() as endpoints:
    code, headers, body = request(endpoints.url, path="/healthz")
"""

import http.client
import socket
from urllib.parse import urlsplit

from modelpack.prefetch.web import server
from tests.support.statuses import RecordingControl, model, status

# Far longer than anything takes on a loaded machine.
SECONDS = 60


class Daemon:
    """A server over a status that the test may change."""

    def __init__(self, directory, **options):
        self.status = status(model())
        self.control = RecordingControl()
        self.socket = directory / "control.sock"
        self._options = {"listen": "127.0.0.1:0", "socket_path": self.socket, **options}

    def serve(self):
        return server.running(lambda: self.status, self.control, **self._options)


def request(url, method="GET", path="/", headers=None, body=None):
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=SECONDS)
    try:
        connection.request(method, path, headers=headers or {}, body=body)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def raw(url, sent):
    """What comes back for exactly these bytes, until the server hangs up."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=SECONDS) as connection:
        connection.sendall(sent)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received
