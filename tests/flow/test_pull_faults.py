"""A pull survives what networks and servers do, verified, and fetches nothing twice for it."""

import threading
import time

import pytest

import modelpack
from modelpack import download, pulling
from modelpack.errors import AuthError, IntegrityError, NetworkError, NotFoundError, ProtocolError
from modelpack.events import Retried
from modelpack.registry import ranges
from tests.support.faultregistry import BearerAuth, BlobHost, Fault, FaultRegistry, TokenHost
from tests.support.models import leftovers, read_tree

MIB = 1024 * 1024


def pull(published, out, **options):
    result = modelpack.pull(published.reference, out, **options)
    assert read_tree(out) == read_tree(published.model)
    assert modelpack.verify(out).ok
    assert not [name for name in leftovers(out) if name.startswith("staging")]
    return result


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault.status(503, kind="blob", times=3), id="503"),
        pytest.param(Fault.status(429, retry_after=1, kind="blob", times=2), id="429-retry-after"),
        pytest.param(Fault.status(500, kind="blob", times=3), id="500"),
        pytest.param(Fault.status(502, kind="manifest", times=2), id="502-manifest"),
        pytest.param(Fault.status(408, kind="blob", times=2), id="408"),
        pytest.param(Fault.truncate(after=MIB, times=4), id="truncated"),
        pytest.param(Fault.reset(after=MIB, times=4), id="reset"),
        pytest.param(Fault.drop(kind="blob", times=3), id="dropped-before-answer"),
        pytest.param(Fault.empty_200(kind="blob", times=2), id="length-but-empty-body"),
        pytest.param(Fault.corrupt(2 * MIB, times=1), id="one-corrupt-answer"),
        pytest.param(Fault.chunked(kind="blob"), id="chunked-transfer-coding"),
        pytest.param(Fault.close(kind="blob"), id="connection-closed-after-each"),
        pytest.param(Fault.too_many_connections(2), id="two-connections-at-most"),
    ],
)
def test_transient_faults_are_survived(fault, published, tmp_path):
    published.registry.faults.add(fault)
    pull(published, tmp_path / "out")
    assert published.registry.faults.fired(fault) > 0
    assert published.registry.violations == []


def test_range_ignored_is_one_verified_stream(published, tmp_path):
    fault = Fault.ignore_range(kind="blob")
    published.registry.faults.add(fault)
    pull(published, tmp_path / "out")
    assert published.registry.faults.fired(fault) > 0


def test_range_ignored_and_broken_off(published, tmp_path):
    published.registry.faults.add(
        Fault.ignore_range(kind="blob"), Fault.truncate(after=5 * MIB, kind="blob", times=2)
    )
    pull(published, tmp_path / "out")


def test_broken_connections_cost_at_most_a_chunk_each(published, tmp_path):
    cut = Fault.reset(after=3 * MIB, digest=published.weights, times=3)
    published.registry.faults.add(cut)
    pull(published, tmp_path / "out")
    # Bytes handed to the system before a reset may be lost in socket buffers beside the chunk.
    assert published.registry.repeated_bytes(published.weights) < 3 * 4 * MIB


def test_stall_is_reissued_from_the_last_verified_chunk(published, tmp_path, monkeypatch):
    monkeypatch.setattr(ranges, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(
        ranges.HttpRangeConnection.__init__, "__kwdefaults__", {"stall_seconds": 1.0}
    )
    stall = Fault.stall(after=2 * MIB, seconds=30, digest=published.weights, times=1)
    published.registry.faults.add(stall)
    started = time.monotonic()
    pull(published, tmp_path / "out")
    assert published.registry.faults.fired(stall) == 1
    assert time.monotonic() - started < 15


def test_registry_that_goes_away_and_comes_back(published, tmp_path):
    published.registry.faults.add(Fault.slow(4 * MIB, digest=published.weights))
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(pull(published, tmp_path / "out")))
    thread.start()
    time.sleep(1.0)
    published.registry.stop()
    time.sleep(1.5)
    published.registry.faults.clear()
    published.registry.start()
    thread.join(60)
    assert done


def test_gives_up_in_bounded_time_and_goes_on_later(published, tmp_path, monkeypatch):
    monkeypatch.setattr(
        download.Downloader.__init__,
        "__kwdefaults__",
        {**download.Downloader.__init__.__kwdefaults__, "give_up_seconds": 1.5},
    )
    good = 12 * MIB
    published.registry.faults.add(Fault.status(503, digest=published.weights, covers=(good, 10**9)))
    out = tmp_path / "out"
    with pytest.raises(NetworkError, match="run again"):
        modelpack.pull(published.reference, out)
    assert read_tree(out) == {}
    fetched = published.registry.bytes_sent(published.weights)
    published.registry.faults.clear()
    result = pull(published, out)
    assert result.fetched_bytes < 25 * MIB - fetched + 4 * MIB


def test_a_chunk_that_never_completes_is_given_up(published, tmp_path):
    published.registry.faults.add(Fault.truncate(after=1000, digest=published.weights))
    with pytest.raises(NetworkError, match="at the same place"):
        modelpack.pull(published.reference, tmp_path / "out")


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        pytest.param(
            Fault.wrong_content_range(kind="blob"),
            ProtocolError,
            "the server sent",
            id="wrong-content-range",
        ),
        pytest.param(
            Fault.other_range(4096, kind="blob"), ProtocolError, "the server sent", id="other-range"
        ),
        pytest.param(Fault.corrupt(2 * MIB), IntegrityError, "BLAKE3", id="corrupt-every-time"),
        pytest.param(
            Fault.status(404, kind="blob", nth=range(2, 99)),
            NotFoundError,
            "missing",
            id="blob-missing",
        ),
        pytest.param(
            Fault.status(403, kind="blob", nth=range(2, 99)), AuthError, "denied", id="blob-denied"
        ),
        pytest.param(
            Fault.status(416, kind="blob", nth=range(2, 99)), ProtocolError, "shorter", id="416"
        ),
        pytest.param(
            Fault.header("Content-Encoding", "gzip", kind="blob"),
            ProtocolError,
            "Content-Encoding",
            id="encoded",
        ),
    ],
)
def test_final_faults_end_the_pull_clearly(fault, error, message, published, tmp_path):
    published.registry.faults.add(fault)
    out = tmp_path / "out"
    with pytest.raises(error, match=message) as caught:
        modelpack.pull(published.reference, out)
    assert "\n" not in str(caught.value)
    assert read_tree(out) == {}
    published.registry.faults.clear()
    pull(published, out)


def test_retries_are_reported(published, tmp_path):
    events = []
    published.registry.faults.add(Fault.status(503, retry_after=1, kind="blob", nth=2))
    pull(published, tmp_path / "out", observer=events.append)
    assert [event for event in events if isinstance(event, Retried)]


def test_token_that_expires_during_the_pull_is_renewed(tmp_path, published, monkeypatch):
    auth = BearerAuth(users={"ada": "secret"}, lifetime=1.0)
    with FaultRegistry(auth=auth, store=published.registry.store) as guarded:
        guarded.faults.add(Fault.slow(6 * MIB, digest=published.weights))
        reference = f"{guarded.host}/team/model:v1"
        with pytest.raises(AuthError, match=f"modelpack login {guarded.host}"):
            modelpack.pull(reference, tmp_path / "none")
        from modelpack.registry.credentials import Credentials

        connection = modelpack.ConnectionOptions(
            credentials=Credentials(username="ada", password="secret"), max_connections=1
        )
        modelpack.pull(reference, tmp_path / "out", connection=connection)
        assert read_tree(tmp_path / "out") == read_tree(published.model)
        assert len(auth.tokens_issued) >= 3
        assert guarded.violations == []


def test_credentials_do_not_follow_a_redirect(tmp_path, published):
    from modelpack.registry.credentials import Credentials

    auth = BearerAuth(users={"ada": "hunter2-secret"})
    with (
        FaultRegistry(auth=auth, store=published.registry.store) as guarded,
        BlobHost(published.registry.store, uses=1) as blobs,
    ):
        guarded.faults.add(Fault.redirect(blobs, kind="blob"))
        connection = modelpack.ConnectionOptions(
            credentials=Credentials(username="ada", password="hunter2-secret")
        )
        modelpack.pull(f"{guarded.host}/team/model:v1", tmp_path / "out", connection=connection)
        assert read_tree(tmp_path / "out") == read_tree(published.model)
        assert blobs.credentials_seen == []
        assert blobs.requests_with("hunter2-secret") == []
        assert blobs.requests
        assert blobs.violations == []


@pytest.mark.parametrize("address", ["127.0.0.3", "localhost.evil.test", "169.254.169.254"])
def test_realm_elsewhere_gets_no_credentials(address, tmp_path, published):
    from modelpack.registry.credentials import Credentials

    auth = BearerAuth(users={"ada": "secret"})
    auth.realm = f"http://{address}:1/token" if address != "127.0.0.3" else None
    with (
        TokenHost(auth) as tokens,
        FaultRegistry(auth=auth, store=published.registry.store) as guarded,
    ):
        if address == "127.0.0.3":
            auth.realm = f"{tokens.url}/token"
        connection = modelpack.ConnectionOptions(
            credentials=Credentials(username="ada", password="secret")
        )
        with pytest.raises(IntegrityError) as caught:
            modelpack.pull(f"{guarded.host}/team/model:v1", tmp_path / "out", connection=connection)
        assert "secret" not in str(caught.value)
        assert tokens.requests == []


def test_rate_limit_holds(published, tmp_path):
    connection = modelpack.ConnectionOptions(limit_rate=12 * MIB)
    started = time.monotonic()
    pull(published, tmp_path / "out", connection=connection)
    assert time.monotonic() - started > 1.5


def test_max_connections_holds(published, tmp_path):
    connection = modelpack.ConnectionOptions(max_connections=1)
    refused = Fault.too_many_connections(3)
    published.registry.faults.add(refused)
    pull(published, tmp_path / "out", connection=connection)
    assert published.registry.faults.fired(refused) == 0


def test_gate_decides_before_any_layer_is_fetched(published, tmp_path):
    from modelpack.errors import PolicyError

    def refuse(reference, manifest):
        raise PolicyError(f"{reference}: not signed")

    with pytest.raises(PolicyError):
        modelpack.pull(published.reference, tmp_path / "out", gate=refuse)
    assert not published.registry.select(kind="blob")
    assert not (tmp_path / "out").exists()


def test_plan_start_is_bounded():
    assert 4 <= pulling.plan_connections() <= 8
