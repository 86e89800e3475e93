"""Pulls through mirrors: asked first, believed nothing, and left when they fail."""

import pytest

import modelpack
from modelpack.digest import Digest
from modelpack.errors import IntegrityError, NetworkError, UsageError
from modelpack.events import Warned
from modelpack.reference import parse_reference
from modelpack.registry.mirrors import MirroredRepository
from modelpack.registry.options import ConnectionOptions, Mirror
from tests.support.faultregistry import BasicAuth, Fault, FaultRegistry
from tests.support.httpproxy import Proxy
from tests.support.models import one_shard, write_files
from tests.support.samplemodel import digests_of

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "modelpack.registry.ranges.HttpRangeConnection.__init__.__kwdefaults__",
        {"stall_seconds": 1.0},
    )
    monkeypatch.setattr("modelpack.registry.options._MIRROR_PATIENCE_SECONDS", 0.5)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def origin():
    with FaultRegistry() as registry:
        yield registry


@pytest.fixture
def mirror(origin):
    """A registry on another address that has what the origin has."""
    with FaultRegistry(address="127.0.0.2", store=origin.store) as registry:
        yield registry


@pytest.fixture
def model(tmp_path):
    return write_files(
        tmp_path / "model",
        {f"w{number}.safetensors": one_shard(range(number * 10, number * 10 + 4), size=MIB)
         for number in range(3)} | {"config.json": b"{}"},
    )  # fmt: skip


@pytest.fixture
def reference(origin, model):
    reference = f"{origin.host}/team/model:v1"
    modelpack.push(model, reference)
    return reference


def options(origin, *mirrors, **others):
    return ConnectionOptions(mirrors={origin.host: mirrors}, **others)


def pull(reference, destination, connection):
    """Pull; return the result and the warnings that an observer saw."""
    warned = []

    def observe(event):
        if isinstance(event, Warned):
            warned.append(event.message)

    result = modelpack.pull(reference, destination, connection=connection, observer=observe)
    return result, warned


def asked(registry):
    """Return what was asked for after the push of the model."""
    requests = registry.requests
    pushed = [number for number, record in enumerate(requests) if record.method == "PUT"]
    return requests[pushed[-1] + 1 if pushed else 0 :]


def test_a_mirror_that_has_everything(origin, mirror, model, reference, tmp_path):
    _, warned = pull(reference, tmp_path / "out", options(origin, mirror.url))
    assert digests_of(tmp_path / "out") == digests_of(model)
    assert warned == []
    assert asked(origin) == []
    assert asked(mirror)
    assert all(record.query == {"ns": [origin.host]} for record in mirror.requests)
    assert mirror.violations == []


BROKEN = {
    "missing": lambda: Fault.status(404),
    "manifests-missing": lambda: Fault.status(404, kind="manifest"),
    "blobs-missing": lambda: Fault.status(404, kind="blob"),
    "refuses": lambda: Fault.status(403),
    "asks-for-a-login": lambda: Fault.status(401),
    "failing": lambda: Fault.status(500),
    "busy": lambda: Fault.status(503, retry_after=1),
    "hangs-up": Fault.drop,
    "cut-short": lambda: Fault.truncate(after=100_000, kind="blob"),
    "stalls": lambda: Fault.stall(after=100_000, seconds=30, kind="blob"),
    "another-range": Fault.wrong_content_range,
    "wrong-bytes": lambda: Fault.corrupt(offset=5000, kind="blob"),
    "wrong-manifest": lambda: Fault.replace_body(b"{}", kind="manifest"),
    "empty": Fault.empty_200,
    "endless": lambda: Fault.oversize(kind="manifest"),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_a_mirror_that_fails_or_lies(how, origin, mirror, model, reference, tmp_path):
    mirror.faults.add(BROKEN[how]())
    _, warned = pull(reference, tmp_path / "out", options(origin, mirror.url))
    assert digests_of(tmp_path / "out") == digests_of(model)
    assert len(warned) == 1
    assert warned[0].startswith(f"mirror {mirror.url}: ")
    assert asked(origin)
    assert not any("ns" in record.query for record in origin.requests)
    assert "?" not in warned[0]


def test_a_mirror_that_knows_no_ranges(origin, mirror, model, reference, tmp_path):
    """A cache that has to fetch a blob first sends all of it."""
    mirror.faults.add(Fault.ignore_range())
    pull(reference, tmp_path / "out", options(origin, mirror.url))
    assert digests_of(tmp_path / "out") == digests_of(model)
    assert asked(origin) == []


def test_a_mirror_that_lies_and_knows_no_ranges(origin, mirror, model, reference, tmp_path):
    mirror.faults.add(Fault.ignore_range(), Fault.corrupt(offset=5000, kind="blob"))
    pull(reference, tmp_path / "out", options(origin, mirror.url))
    assert digests_of(tmp_path / "out") == digests_of(model)


def test_a_mirror_that_is_not_there(origin, mirror, model, reference, tmp_path):
    mirror.stop()
    _, warned = pull(reference, tmp_path / "out", options(origin, mirror.url))
    assert digests_of(tmp_path / "out") == digests_of(model)
    assert len(warned) == 1


def test_the_next_mirror_is_asked(origin, mirror, model, reference, tmp_path):
    with FaultRegistry(address="127.0.0.3", store=origin.store) as second:
        mirror.faults.add(Fault.corrupt(offset=5000, kind="blob"))
        pull(reference, tmp_path / "out", options(origin, mirror.url, second.url))
        assert digests_of(tmp_path / "out") == digests_of(model)
        assert asked(second)
        assert asked(origin) == []


def test_a_mirror_will_do_while_the_registry_is_away(origin, mirror, model, reference, tmp_path):
    origin.stop()
    pull(reference, tmp_path / "out", options(origin, mirror.url))
    assert digests_of(tmp_path / "out") == digests_of(model)


def test_a_liar_is_not_asked_again(origin, mirror, reference, tmp_path):
    lie = Fault.corrupt(offset=5000, kind="blob")
    mirror.faults.add(lie)
    pull(reference, tmp_path / "out", options(origin, mirror.url, max_connections=1))
    assert mirror.faults.fired(lie) <= 2  # a small blob, and a range


def test_bytes_that_nobody_has_right(origin, mirror, reference, tmp_path):
    for registry in (origin, mirror):
        registry.faults.add(Fault.corrupt(offset=5000, kind="blob"))
    with pytest.raises(IntegrityError):
        pull(reference, tmp_path / "out", options(origin, mirror.url))


def test_a_mirror_gets_no_login_of_the_registrys(origin, mirror, model, tmp_path, monkeypatch):
    """Neither the stored one nor that of the command line, even if it asks."""
    auth = BasicAuth({"ada": "secret"})
    with (
        FaultRegistry(auth=auth, store=origin.store) as private,
        FaultRegistry(address="127.0.0.2", auth=auth, store=origin.store) as nosy,
    ):
        reference = f"{private.host}/team/model:v1"
        from modelpack.registry.credentials import Credentials

        login = Credentials(username="ada", password="secret")
        modelpack.push(model, reference, connection=ConnectionOptions(credentials=login))
        pull(reference, tmp_path / "out", options(private, nosy.url, credentials=login))
        assert digests_of(tmp_path / "out") == digests_of(model)
        assert nosy.requests
        assert nosy.credentials_seen == []


def test_signatures_are_the_registrys_to_list(origin, mirror, reference):
    """A mirror that keeps them back changes nothing; one that has them helps in an outage."""
    mirror.faults.add(Fault.status(404, kind="referrers", times=1))
    digest = Digest.of(b"subject")
    with MirroredRepository(parse_reference(reference), options(origin, mirror.url)) as repository:
        assert repository.referrers(digest) == []
        assert [record for record in mirror.requests if "referrers" in record.path] == []
    origin.stop()
    with MirroredRepository(parse_reference(reference), options(origin, mirror.url)) as repository:
        assert "v1" in repository.tags()


def test_pushing_knows_no_mirrors(origin, mirror, model):
    reference = f"{origin.host}/team/other:v1"
    modelpack.push(model, reference, connection=options(origin, mirror.url))
    assert {record.method for record in mirror.requests} <= {"GET", "HEAD"}


@pytest.mark.parametrize(
    ("url", "api"),
    [
        ("http://127.0.0.1:5001", "http://127.0.0.1:5001/v2"),
        ("http://127.0.0.1:5001/", "http://127.0.0.1:5001/v2"),
        ("https://cache.example/some/where", "https://cache.example/some/where/v2"),
        ("https://harbor.example/v2/proxy", "https://harbor.example/v2/proxy"),
    ],
)
def test_where_a_mirrors_api_is(url, api):
    assert Mirror.parse(url, "registry.example").api == api


@pytest.mark.parametrize(
    "url", ["", "cache.example", "ftp://cache.example", "http://u:secret@cache.example",
            "http://cache.example?a=b", "http://cache.example#x"],
)  # fmt: skip
def test_what_is_no_mirror(url):
    with pytest.raises(UsageError, match=r"mirror of registry\.example") as caught:
        ConnectionOptions(mirrors={"registry.example": (url,)})
    assert "secret" not in str(caught.value)


def test_the_hub_has_one_name():
    options = ConnectionOptions(mirrors={"docker.io": ("http://127.0.0.1:5001",)})
    assert [item.registry for item in options.mirrors_of("index.docker.io")] == ["docker.io"]


def test_everything_goes_through_a_proxy(origin, model, reference, tmp_path):
    """A registry that only the proxy can find, as where nodes have no way out."""
    host, _, port = origin.host.partition(":")
    proxy = Proxy((host, int(port)))
    far = reference.replace(origin.host, "registry.test:5000")
    connection = ConnectionOptions(plain_http=True, proxy=f"http://{proxy.host}", patience=3.0)
    try:
        modelpack.pull(far, tmp_path / "out", connection=connection)
        assert digests_of(tmp_path / "out") == digests_of(model)
        assert all(" http://registry.test:5000/v2/" in head for head in proxy.heads)
    finally:
        proxy.close()
    with pytest.raises(NetworkError):
        modelpack.pull(far, tmp_path / "again", connection=connection)
