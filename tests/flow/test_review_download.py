"""The download engine among connections that misbehave together, without a network."""

import io
import socket
import ssl
import threading
import time
from contextlib import contextmanager

import pytest

from modelpack.chunkindex import ChunkIndex
from modelpack.descriptor import OCI_LAYER_TAR, Descriptor
from modelpack.digest import chunk_hash
from modelpack.download import Downloader
from modelpack.errors import IntegrityError, ModelpackError, NetworkError, TransientError
from modelpack.events import ignore
from modelpack.plan import ChunkMap, ChunkState, FetchRange
from modelpack.ratelimit import RateLimiter
from modelpack.registry.addresses import Origin
from modelpack.registry.connections import Connection
from modelpack.schedule import ConnectionGovernor
from modelpack.storage import RangeIgnoredError
from tests.support.certificates import PrivateCA
from tests.support.indexes import fake_digest, make_index
from tests.support.models import random_bytes

# Of the small ones several are read at once, of the large ones each by itself.
SMALL, LARGE = 300_000, 700_000
COUNT = 6
BOTH = pytest.mark.parametrize("chunk", [SMALL, LARGE], ids=["small", "large"])


class Model:
    """One file of six chunks in one layer, and a sink that remembers what was written."""

    def __init__(self, chunk=SMALL):
        self.chunk = chunk
        index = make_index([("a.bin", [chunk] * COUNT)])
        self.data = random_bytes(chunk * COUNT)
        hashes = b"".join(
            chunk_hash(self.data[start : start + chunk])
            for start in range(0, len(self.data), chunk)
        )
        self.index = ChunkIndex(
            layers=index.layers, files=index.files, lengths=index.lengths, hashes=hashes
        )
        self.map = ChunkMap.of(self.index)
        self.written = bytearray(len(self.data))
        self.done = set()

    @property
    def layer(self) -> bytes:
        return bytes(self.map.start(0)) + self.data

    def write(self, chunk, offset, data):
        position = chunk * self.chunk + offset
        self.written[position : position + len(data)] = data

    def verified(self, chunks):
        self.done.update(chunks)

    def download(self, connect, **options):
        size = self.index.layers[0].size
        return Downloader(
            chunk_map=self.map,
            states=bytearray([ChunkState.FETCH] * COUNT),
            layers=[Descriptor(media_type=OCI_LAYER_TAR, digest=fake_digest(1), size=size)],
            connect=connect,
            sink=self,
            observer=ignore,
            **options,
        )


class Stream:
    """Bytes of which ``before(position)`` is told, and which may be changed on the way."""

    def __init__(self, data, before=lambda _: None, piece=100_000):
        self._file = io.BytesIO(data)
        self._before = before
        self._piece = piece

    def readinto(self, buffer):
        self._before(self._file.tell())
        return self._file.readinto(buffer[: self._piece])


class Link:
    """A range connection made of a function from (start, length) to a stream."""

    def __init__(self, serve):
        self._serve = serve
        self.aborted = threading.Event()

    @contextmanager
    def open_range(self, descriptor, start, length):
        yield self._serve(self, start, length)

    def abort(self):
        self.aborted.set()

    def close(self):
        pass


def run(downloader, *ranges):
    downloader.run([FetchRange(layer=0, first=first, last=last) for first, last in ranges])


@BOTH
def test_a_verified_chunk_is_not_written_again(chunk):
    """A registry that ignores one range and serves another, wrong and slowly, must gain nothing."""
    model = Model(chunk)
    half_way = threading.Event()

    def whole(_link, _start, _length):
        assert half_way.wait(10)

        @contextmanager
        def stream():
            yield Stream(model.layer)

        raise RangeIgnoredError(stream())

    def evil(link, start, length):
        data = bytearray(model.layer[start : start + length])
        data[chunk // 2 : chunk] = bytes(chunk - chunk // 2)

        def before(position):
            if position >= chunk // 3:
                half_way.set()
                for _ in range(40):  # until the other has verified the chunk, or for a while
                    if 3 in model.done or link.aborted.wait(0.01):
                        break

        return Stream(bytes(data), before)

    def serve(link, start, length):
        return (whole if start < model.map.start(3) else evil)(link, start, length)

    run(
        model.download(lambda: Link(serve), max_connections=2, start_connections=2),
        (0, 3),
        (3, 6),
    )
    assert model.done == set(range(COUNT))
    assert bytes(model.written) == model.data


@BOTH
def test_a_connection_that_breaks_costs_no_chunk_that_came_whole(chunk):
    model = Model(chunk)
    asked = []

    def serve(_link, start, length):
        asked.append(start)
        end = model.map.end(1) - start + 1000 if len(asked) == 1 else length
        return Stream(model.layer[start : start + end])

    run(model.download(lambda: Link(serve), max_connections=1), (0, COUNT))
    assert asked == [model.map.start(0), model.map.start(2)]
    assert bytes(model.written) == model.data


@BOTH
def test_wrong_bytes_cost_the_chunk_they_are_in(chunk):
    """They never count, and what came before them does."""
    model = Model(chunk)
    asked = []

    def serve(_link, start, length):
        asked.append(start)
        data = bytearray(model.layer[start : start + length])
        data[model.map.start(1) + 5 - start if len(asked) < 3 else 0] ^= len(asked) < 3
        return Stream(bytes(data))

    run(model.download(lambda: Link(serve), max_connections=1), (0, COUNT))
    assert asked == [model.map.start(0), model.map.start(1), model.map.start(1)]
    assert bytes(model.written) == model.data


@BOTH
def test_bytes_that_stay_wrong_are_said_to_be(chunk):
    model = Model(chunk)

    def serve(_link, start, length):
        return Stream(bytes(length))

    with pytest.raises(IntegrityError, match=r"a\.bin: chunk 0 arrived with other bytes"):
        run(model.download(lambda: Link(serve), max_connections=1), (0, COUNT))
    assert not model.done


def test_a_failure_ends_workers_that_wait_for_a_rate():
    model = Model()

    def serve(_link, start, length):
        if start < model.map.start(3):
            return Stream(model.layer[start : start + length])
        time.sleep(0.3)
        raise IntegrityError("broken")

    downloader = model.download(
        lambda: Link(serve), max_connections=4, start_connections=4, limiter=RateLimiter(10_000)
    )
    started = time.monotonic()
    with pytest.raises(IntegrityError, match="broken"):
        run(downloader, (0, 1), (1, 2), (2, 3), (3, 6))
    assert time.monotonic() - started < 1.5


def test_a_rate_is_kept_in_small_pieces():
    """Else one read takes its whole buffer's worth of time, and the server closes meanwhile."""
    model = Model()
    sizes = []

    def serve(_link, start, length):
        stream = Stream(model.layer[start : start + length], piece=2**30)
        inner = stream.readinto

        def readinto(buffer):
            sizes.append(len(buffer))
            return inner(buffer)

        stream.readinto = readinto
        return stream

    downloader = model.download(lambda: Link(serve), limiter=RateLimiter(900_000))
    run(downloader, (0, COUNT))
    assert max(sizes) <= 900_000 / 4


def test_a_burst_of_refusals_is_one_reason_to_back_off():
    model = Model()
    together = threading.Barrier(6, timeout=20)
    first = set()

    def serve(_link, start, length):
        if start not in first:
            first.add(start)
            together.wait()
            raise TransientError("busy", retry_after=0.01)
        return Stream(model.layer[start : start + length])

    downloader = model.download(lambda: Link(serve), max_connections=6, start_connections=6)
    run(downloader, *((number, number + 1) for number in range(COUNT)))
    assert downloader._governor.target == 4
    assert bytes(model.written) == model.data


def test_connections_come_back_when_the_server_is_quiet():
    governor = ConnectionGovernor.starting(6)
    for _ in range(5):
        governor.throttled()
    seen = []
    for _ in range(7):
        governor.eased()
        seen.append(governor.target)
    assert seen == [2, 3, 4, 5, 6, 6, 6]


def test_threads_that_cannot_be_started_are_done_without(monkeypatch):
    model = Model()
    real = threading.Thread.start
    started = []

    def start(thread):
        if thread.name == "modelpack-fetch":
            if len(started) == 2:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)

    def serve(_link, start, length):
        return Stream(model.layer[start : start + length])

    run(
        model.download(lambda: Link(serve), start_connections=6),
        *((number, number + 1) for number in range(COUNT)),
    )
    assert bytes(model.written) == model.data
    with pytest.raises(ModelpackError, match="no thread"):
        run(model.download(lambda: Link(serve)), (0, COUNT))


def test_giving_up_says_what_the_trouble_was():
    model = Model()

    def serve(*_):
        raise TransientError("registry.example: HTTP 503", retry_after=0.01)

    downloader = model.download(lambda: Link(serve), give_up_seconds=0.2)
    with pytest.raises(NetworkError, match=r"registry\.example: HTTP 503.*run again"):
        run(downloader, (0, COUNT))


def test_an_aborted_tls_connection_gives_no_ciphertext(tmp_path):
    """SSLSocket.shutdown would drop the TLS layer under a reader, who then gets what is encrypted."""
    certificate, key = PrivateCA(tmp_path).issue("server")
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate, key)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    left, right = socket.socketpair()
    sent = threading.Event()

    def serve():
        with server_context.wrap_socket(right, server_side=True) as tls:
            tls.sendall(b"A" * 60_000)
            sent.set()
            done.wait(10)

    done = threading.Event()
    server = threading.Thread(target=serve)
    server.start()
    tls = client_context.wrap_socket(left)
    connection = Connection(tls, Origin("https", "localhost", 443), through_proxy=False)
    got = tls.recv(10)
    assert sent.wait(10)
    connection.abort()
    try:
        while piece := tls.recv(16384):
            got += piece
    except OSError:
        pass
    finally:
        done.set()
        server.join()
        connection.close()
    assert set(got) == set(b"A")
