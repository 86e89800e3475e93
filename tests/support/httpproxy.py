"""An HTTP proxy, for CONNECT and for requests in absolute form.

proxy = Proxy(("127.0.0.1", port_of_the_registry))
"""

import select
import socket
import threading


class Proxy:
    """A proxy that leads every name to one server, and keeps the heads of the requests."""

    def __init__(self, target):
        self.heads = []
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def host(self):
        return f"127.0.0.1:{self._server.getsockname()[1]}"

    def close(self):
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in list(self._threads):
            thread.join(10)

    def _accept(self):
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer):
        with peer, socket.create_connection(self._target) as upstream:
            head = b""
            while b"\r\n\r\n" not in head:
                more = peer.recv(65536)
                if not more:
                    return
                head += more
            self.heads.append(head.decode("latin-1"))
            method, _, rest = head.partition(b" ")
            if method == b"CONNECT":
                peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                # One request a connection is enough here: the absolute form becomes a path.
                path = b"/" + rest.split(b"://", 1)[1].split(b"/", 1)[1]
                upstream.sendall(method + b" " + path)
            ends = {peer: upstream, upstream: peer}
            while True:
                ready, _, _ = select.select(list(ends), [], [], 10)
                for end in ready:
                    data = end.recv(65536)
                    if not data:
                        return
                    if b"HTTP/1.1\r\n" in data[:500] and end is peer and method != b"CONNECT":
                        self.heads.append(data.decode("latin-1"))
                        verb, _, rest = data.partition(b" ")
                        data = verb + b" /" + rest.split(b"://", 1)[1].split(b"/", 1)[1]
                    ends[end].sendall(data)
