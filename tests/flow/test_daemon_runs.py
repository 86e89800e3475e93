"""The daemon with its threads and files: reloading, stopping, hanging runtimes, one for each store.

The node is the one in memory; time is real, so everything is waited for with generous bounds.
"""

import contextlib
import threading
import time
from pathlib import Path

import pytest
import yaml

from modelpack.errors import NotFoundError, UsageError
from modelpack.prefetch import daemon as daemon_module
from modelpack.prefetch import reloading
from modelpack.prefetch.daemon import Daemon
from modelpack.prefetch.status import Stage
from tests.support.memorynode import MemoryNode, Registry

REFERENCE = "registry.example/team/model:v1"
PATIENCE = 60


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(daemon_module, "RELOAD_EVERY", 0.05)
    monkeypatch.setattr(daemon_module, "BEAT", 0.02)


@pytest.fixture
def registry():
    found = Registry()
    found.push(REFERENCE, {"base": 60, "one": 10})
    return found


def write(path, *references, **more):
    document = {
        "store": str(path.parent / "store"),
        "budget": 1000,
        "runtime": {"kind": "directory", "path": "/nowhere"},
        "scrub": {"every": "never"},
        "models": [{"ref": reference} for reference in references or [REFERENCE]],
        **more,
    }
    path.write_text(yaml.safe_dump(document))
    return path


def open_daemon(path, node, environ=None):
    environ = environ or {"HOME": "/nonexistent", "MODELPACK_NODE_NAME": "n1"}
    return Daemon.open(path, open_node=lambda *_: node, environ=environ)


@contextlib.contextmanager
def running(path, node, **options):
    with open_daemon(path, node, **options) as daemon:
        ended = []
        thread = threading.Thread(target=lambda: ended.append(daemon.run()))
        thread.start()
        try:
            yield daemon
        finally:
            daemon.stop()
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert ended == [True]


def wait(condition):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("nothing came of it")


def ready(daemon, count=1):
    wait(lambda: sum(model.digest is not None for model in daemon.status().models) >= count)


def test_it_brings_models_and_says_so(tmp_path, registry):
    node = MemoryNode(registry)
    with running(write(tmp_path / "d.yaml"), node) as daemon:
        assert daemon.status().unready
        ready(daemon)
        status = daemon.status()
        assert status.node == "n1"
        assert status.unready == ()
        assert status.runtime.reachable
        assert status.models[0].stage == Stage.READY
        assert status.budget.used == 70
        assert status.totals.imports == 1
        assert not status.stopping
    assert daemon.status().stopping


def test_a_changed_file_comes_into_force_and_a_bad_one_does_not(tmp_path, registry):
    other = "registry.example/other:v1"
    registry.push(other, {"o": 5})
    path = write(tmp_path / "d.yaml")
    with running(path, MemoryNode(registry)) as daemon:
        ready(daemon)
        write(path, REFERENCE, other)
        ready(daemon, 2)
        assert daemon.status().configuration.generation == 2
        path.write_text(path.read_text() + "budgt: 1\n")
        error = wait(lambda: daemon.status().configuration.error)
        assert "budgt is not known" in error
        assert len(daemon.status().models) == 2
        assert daemon.status().totals.failed_reloads == 1
        write(path, other)
        wait(lambda: daemon.status().configuration.error is None)
        assert daemon.status().configuration.generation == 3
        assert daemon.status().models[0].reference == other


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"store": "/elsewhere"}, "store"),
        ({"listen": "127.0.0.1:1"}, "listen"),
        ({"controlSocket": "/x"}, "controlSocket"),
        ({"runtime": {"kind": "directory", "path": "/other"}}, "runtime"),
    ],
)
def test_what_needs_a_restart_is_refused_in_one_piece(tmp_path, registry, change, name):
    path = write(tmp_path / "d.yaml")
    with running(path, MemoryNode(registry)) as daemon:
        write(path, "registry.example/other:v1", **change)
        error = wait(lambda: daemon.status().configuration.error)
        assert f"{name} cannot change while the daemon runs; restart it" in error
        assert daemon.status().models[0].reference == REFERENCE


@pytest.mark.parametrize(
    "bad", ["budgt: 1\n", "models: [\n", "\x00"], ids=["unknown", "yaml", "nul"]
)
def test_a_restart_with_a_bad_configuration_keeps_the_last_good_one(tmp_path, registry, bad):
    path = write(tmp_path / "d.yaml")
    node = MemoryNode(registry)
    with running(path, node) as daemon:
        ready(daemon)
    path.write_text(path.read_text() + bad)
    with running(path, node) as daemon:
        ready(daemon)
        assert daemon.status().configuration.error
        write(path)
        wait(lambda: daemon.status().configuration.error is None)


def test_a_first_start_with_a_bad_configuration_is_an_error(tmp_path, registry):
    path = write(tmp_path / "d.yaml")
    path.write_text(path.read_text() + "budgt: 1\n")
    with pytest.raises(UsageError, match="budgt is not known"):
        open_daemon(path, MemoryNode(registry))
    with pytest.raises(NotFoundError, match="does not exist"):
        open_daemon(tmp_path / "none.yaml", MemoryNode(registry))
    # Nothing holds the store.
    write(path)
    with open_daemon(path, MemoryNode(registry)):
        pass


def test_another_daemons_configuration_is_not_taken_for_ones_own(tmp_path, registry):
    with running(write(tmp_path / "d.yaml"), MemoryNode(registry)) as daemon:
        ready(daemon)
    other = write(tmp_path / "other.yaml", "registry.example/x:v1")
    other.write_text(other.read_text() + "budgt: 1\n")
    with pytest.raises(UsageError, match="budgt is not known"):
        open_daemon(other, MemoryNode(registry))


def test_one_daemon_for_each_store(tmp_path, registry):
    path = write(tmp_path / "d.yaml")
    with (
        running(path, MemoryNode(registry)),
        pytest.raises(UsageError, match="another modelpack daemon runs with the store"),
    ):
        open_daemon(path, MemoryNode(registry))


class HangingNode(MemoryNode):
    """Hangs in one method until it is let go."""

    def __init__(self, registry, method):
        super().__init__(registry)
        self.method = method
        self.hangs = threading.Event()
        self.go = threading.Event()

    def _begin(self, name, *details):
        if name == self.method:
            self.hangs.set()
            assert self.go.wait(PATIENCE)
        super()._begin(name, *details)


@pytest.mark.parametrize("method", ["check", "resolve", "install", "mounted"])
def test_a_runtime_that_hangs_does_not_stop_the_loop(tmp_path, registry, method):
    node = HangingNode(registry, method)
    with running(write(tmp_path / "d.yaml"), node) as daemon:
        assert node.hangs.wait(PATIENCE)
        before = daemon.status().alive_at
        wait(lambda: daemon.status().alive_at > before)
        node.go.set()
        ready(daemon)


def test_a_stop_waits_only_so_long(tmp_path, registry, monkeypatch):
    monkeypatch.setattr(daemon_module, "STOP_SECONDS", 0.2)
    node = HangingNode(registry, "install")
    with open_daemon(write(tmp_path / "d.yaml"), node) as daemon:
        ended = []
        thread = threading.Thread(target=lambda: ended.append(daemon.run()))
        thread.start()
        assert node.hangs.wait(PATIENCE)
        daemon.stop()
        thread.join(PATIENCE)
        assert ended == [False]
    node.go.set()
    others = [one for one in threading.enumerate() if one.name.startswith("modelpack-")]
    for other in others:
        other.join(PATIENCE)


class SlowNode(MemoryNode):
    """Fetches until it is stopped."""

    def _step(self, name):
        if name == "piece":
            self.fetching.set()
            time.sleep(0.02)
        super()._step(name)


def test_a_stop_ends_a_transfer_and_the_next_daemon_goes_on(tmp_path, registry):
    registry.push(REFERENCE, {f"p{number}": 4 for number in range(25)})
    path = write(tmp_path / "d.yaml")
    node = SlowNode(registry)
    node.fetching = threading.Event()
    with running(path, node):
        assert node.fetching.wait(PATIENCE)
    begun = node.unfinished_bytes()
    assert 0 < begun < 100
    with running(path, node) as daemon:
        wait(lambda: daemon.status().models[0].stage == Stage.DOWNLOADING)
        assert daemon.status().budget.reserved > 0
        ready(daemon)
        assert daemon.status().totals.fetched_bytes == 100 - begun


@pytest.fixture
def slow(registry):
    registry.push(REFERENCE, {f"p{number}": 4 for number in range(500)})
    node = SlowNode(registry)
    node.fetching = threading.Event()
    return node


def test_what_is_not_wanted_any_more_stops_and_leaves_nothing(tmp_path, registry, slow):
    other = "registry.example/other:v1"
    registry.push(other, {"o": 5})
    path = write(tmp_path / "d.yaml", budget=5000)
    with running(path, slow) as daemon:
        assert slow.fetching.wait(PATIENCE)
        write(path, other, budget=5000)
        ready(daemon)
        wait(lambda: slow.unfinished_bytes() == 0)
        wait(lambda: daemon.status().budget.reserved == 0)
        assert [model.reference for model in daemon.status().models] == [other]


def test_a_tag_that_moves_during_a_transfer_ends_it(tmp_path, registry, slow):
    path = write(tmp_path / "d.yaml", budget=5000)
    with running(path, slow) as daemon:
        assert slow.fetching.wait(PATIENCE)
        newer = registry.push(REFERENCE, {"new": 4})
        daemon.refresh(REFERENCE)
        wait(lambda: daemon.status().models[0].digest == str(newer))
        wait(lambda: slow.unfinished_bytes() == 0)
        assert daemon.status().totals.failures == {}


def test_a_window_that_closes_ends_a_transfer(tmp_path, registry, slow):
    path = write(tmp_path / "d.yaml", budget=5000)
    with running(path, slow) as daemon:
        assert slow.fetching.wait(PATIENCE)
        begins = (time.gmtime().tm_hour + 12) % 24
        window = {"from": f"{begins:02}:00", "to": f"{begins:02}:01"}
        write(path, budget=5000, defaults={"window": window})
        status = wait(
            lambda: next(
                (one for one in daemon.status().models if "its window" in one.reason), None
            )
        )
        assert status.stage == Stage.PENDING
        assert slow.unfinished_bytes() > 0
        assert daemon.status().budget.reserved > 0


def test_what_root_asks_outlives_the_daemon(tmp_path, registry):
    path = write(tmp_path / "d.yaml", defaults={"resolve": "10s"})
    node = MemoryNode(registry)
    with running(path, node) as daemon:
        ready(daemon)
        assert daemon.hold(REFERENCE) == (
            f"{REFERENCE} is held at {str(registry.tags[REFERENCE])[:19]}"
        )
        with pytest.raises(NotFoundError, match="no model is called 'other'"):
            daemon.rollback("other")
        with pytest.raises(UsageError, match="no earlier version"):
            daemon.rollback(REFERENCE)
    held = registry.tags[REFERENCE]
    second = registry.push(REFERENCE, {"base": 60, "two": 10})
    with running(path, node) as daemon:
        assert "looked up and tried again now" in daemon.refresh(None)
        wait(lambda: daemon.status().models[0].candidate == str(second))
        assert daemon.status().models[0].held
        assert daemon.status().models[0].digest == str(held)
        daemon.release(REFERENCE)
        wait(lambda: daemon.status().models[0].digest == str(second))
        assert "goes back to" in daemon.rollback(REFERENCE)
        wait(lambda: daemon.status().models[0].digest == str(held))
        assert daemon.scrub(None) == "1 model is read again soon"
        wait(lambda: ("scrub", held) in node.calls)


def test_a_policy_that_breaks_lets_nothing_through(tmp_path, registry):
    policy = tmp_path / "policy.yaml"
    policy.write_text("rules: [{match: '**', unsigned: true}]\n")
    path = write(tmp_path / "d.yaml", policy="policy.yaml")
    node = MemoryNode(registry)
    with running(path, node) as daemon:
        wait(lambda: daemon.status().models[0].stage in {Stage.FAILED, Stage.REFUSED, Stage.READY})
        policy.write_text("rules: [{match: '**', unsigned: yes, treshold: 2}]\n")
        error = wait(lambda: daemon.status().configuration.error)
        assert "rules[0].treshold is not known" in error
        write(path, "registry.example/other:v1", policy="policy.yaml")
        registry.push("registry.example/other:v1", {"o": 5})
        time.sleep(0.3)
        assert daemon.status().models[0].reference == REFERENCE


def test_a_policy_that_is_mended_brings_the_configuration_into_force(
    tmp_path, registry, monkeypatch
):
    monkeypatch.setattr(reloading, "_TRY_AGAIN", 0.05)
    path = write(tmp_path / "d.yaml")
    with running(path, MemoryNode(registry)) as daemon:
        ready(daemon)
        policy = tmp_path / "policy.yaml"
        policy.write_text("rules: [{match: '**', unsignd: true}]\n")
        write(path, policy="policy.yaml")
        wait(lambda: "unsignd is not known" in (daemon.status().configuration.error or ""))
        assert daemon.status().totals.failed_reloads == 1
        policy.write_text("rules: [{match: '**', unsigned: true}]\n")
        wait(lambda: daemon.status().configuration.error is None)
        assert daemon.status().configuration.generation == 2


def test_a_file_that_comes_later_is_noticed(tmp_path, registry):
    path = write(tmp_path / "d.yaml")
    with running(path, MemoryNode(registry)) as daemon:
        ready(daemon)
        write(path, node={"labelsFile": "labels"})
        wait(lambda: "labels does not exist" in (daemon.status().configuration.error or ""))
        (tmp_path / "labels").write_text('zone="a"\n')
        wait(lambda: daemon.status().configuration.error is None)


class BrokenNode(MemoryNode):
    """Has a fault in its code until it is mended."""

    is_broken = True

    def models(self):
        if self.is_broken:
            raise ZeroDivisionError("a fault")
        return super().models()


def test_a_fault_in_looking_is_shown_and_no_tight_loop(tmp_path, registry):
    node = BrokenNode(registry)
    with running(write(tmp_path / "d.yaml"), node) as daemon:
        wait(lambda: "a fault" in daemon.status().runtime.reason)
        assert not daemon.status().runtime.reachable
        seen = len(node.calls)
        time.sleep(1)
        assert len(node.calls) - seen <= 2
        node.is_broken = False
        ready(daemon)


def test_rates_follow_the_time_of_day(tmp_path, registry):
    path = write(
        tmp_path / "d.yaml",
        limitRate="5M",
        rates=[{"from": "00:00", "to": "24:00", "rate": "7M"}],
    )
    with running(path, MemoryNode(registry)) as daemon:
        ready(daemon)
        assert daemon._tools.limiter.rate == 7_000_000
        write(path, limitRate="9M")
        wait(lambda: daemon._tools.limiter.rate == 9_000_000)


class Notes:
    """A service manager's ear."""

    beat = None

    def __init__(self):
        self.said = []

    def __getattr__(self, name):
        return lambda *_: self.said.append(name)


def test_the_service_manager_is_told(tmp_path, registry):
    notes = Notes()
    path = write(tmp_path / "d.yaml")
    environ = {"HOME": "/nonexistent"}
    with Daemon.open(
        path, open_node=lambda *_: MemoryNode(registry), environ=environ, notifier=notes
    ) as daemon:
        thread = threading.Thread(target=daemon.run)
        thread.start()
        ready(daemon)
        daemon.reload()
        wait(lambda: "reloading" in notes.said)
        daemon.stop()
        thread.join(PATIENCE)
    assert [word for word in notes.said if word not in {"alive", "status"}] == [
        *("ready", "reloading", "ready", "stopping"),
    ]
    assert notes.said.index("alive") < notes.said.index("ready")


def test_a_damaged_state_is_no_reason_not_to_start(tmp_path, registry):
    path = write(tmp_path / "d.yaml")
    node = MemoryNode(registry)
    with running(path, node) as daemon:
        ready(daemon)
    for file in Path(tmp_path / "store" / "daemon").glob("state*.json"):
        file.write_text("\x00")
    with running(path, node) as daemon:
        ready(daemon)
        assert daemon.status().totals.fetched_bytes == 0
