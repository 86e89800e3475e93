"""Handing out and taking back: sums, idempotence, and a crash at every point."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cdi.errors import CdiError, CdiNotFoundError, CdiUsageError, SpecWriteError
from cdi.files import read_spec
from cdi.inventory import Inventory
from cdi.shares import ledger as ledger_module
from cdi.shares import store as store_module
from cdi.shares.ledger import Ledger, read_ledger
from cdi.shares.model import ShareError, usage
from cdi.shares.store import Amount, card_usage
from tests.cdi.shares_machine import GIB, Machine, gpu

ROOT = Path(__file__).parents[2]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path, Inventory(devices=(gpu(0), gpu(1))))


def require_consistent(machine):
    """Require what a crash must not break: no spec without an entry, no card beyond its memory."""
    ledger = read_ledger(machine.state / "shares.json")
    paths = {Path(share.path).name for share in ledger.shares}
    assert set(machine.spec_files()) <= paths
    for index in (0, 1):
        used = usage([f"uuid GPU-{index}"], ledger.shares)
        assert used.memory <= 80 * GIB
        assert used.cores <= 100
    for name in machine.spec_files():
        read_spec(machine.specs / name)
    return ledger


def test_a_share_and_its_end(machine):
    granted = machine.share("a", "nvidia.com/gpu=0", cores=40)
    assert granted.is_new
    assert "libvgpu.so" in granted.notes[0]
    assert machine.spec_files() == ["k8s.hami-core-gpu.project-hami.io-claim_a.yaml"]
    assert [share.claim for share in machine.shares()] == ["a"]
    assert card_usage(machine.shares()) == {"nvidia.com/gpu=0": (8 * GIB, 40, 80 * GIB)}
    assert machine.store.remove("a", machine.cache).claim == "a"
    assert machine.spec_files() == []
    assert not (machine.hook / "vgpu/claims/a").exists()
    assert machine.shares() == ()


def test_the_same_again_is_no_change(machine):
    before = machine.share("a", "nvidia.com/gpu=0", cores=40)
    path = Path(before.share.path)
    inode = path.stat().st_ino
    (machine.hook / "vgpu/claims/a/x.cache").write_text("in use")
    again = machine.share("a", "nvidia.com/gpu=GPU-0", cores=40)
    assert not again.is_new
    assert path.stat().st_ino == inode
    assert (machine.hook / "vgpu/claims/a/x.cache").exists()


def test_a_claim_has_one_set_of_parts(machine):
    machine.share("a", "nvidia.com/gpu=0", cores=40)
    with pytest.raises(CdiUsageError, match="has other parts already"):
        machine.share("a", "nvidia.com/gpu=0", cores=41)
    with pytest.raises(CdiUsageError, match="has other parts already"):
        machine.share("a", "nvidia.com/gpu=1", cores=40)


def test_sums_never_exceed_the_card(machine):
    machine.share("a", "nvidia.com/gpu=0", memory=50 * GIB, cores=60)
    with pytest.raises(ShareError, match="has 30Gi of 80Gi memory left, less than 31Gi") as caught:
        machine.share("b", "nvidia.com/gpu=gpu0", memory=31 * GIB)
    assert caught.value.exit_code == 8
    with pytest.raises(ShareError, match="has 40 percent of its cores left, less than 41"):
        machine.share("b", "nvidia.com/gpu=0", memory=GIB, cores=41)
    with pytest.raises(ShareError):
        machine.share("b", "nvidia.com/gpu=0", "nvidia.com/gpu=1", memory=31 * GIB)
    assert [share.claim for share in machine.shares()] == ["a"]
    assert len(machine.spec_files()) == 1
    machine.share("b", "nvidia.com/gpu=0", memory=30 * GIB, cores=40)
    machine.share("c", "nvidia.com/gpu=1", memory=80 * GIB, cores=100)


def test_oversubscription_is_asked_for(machine):
    machine.share("a", "nvidia.com/gpu=0", memory=80 * GIB, cores=100)
    machine.share("b", "nvidia.com/gpu=0", memory=10 * GIB, cores=10, oversubscribe=True)
    with pytest.raises(ShareError, match="has 0 of 80Gi"):
        machine.share("c", "nvidia.com/gpu=0", memory=GIB)
    machine.store.remove("a", machine.cache)
    machine.share("c", "nvidia.com/gpu=0", memory=GIB)


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (Amount(memory=0), "no whole number of MiB"),
        (Amount(memory=GIB + 1), "no whole number of MiB"),
        (Amount(memory=GIB, cores=101), "cores 101"),
        (Amount(memory=GIB, cores=-1), "cores -1"),
    ],
)
def test_amounts(machine, amount, words):
    with pytest.raises(CdiUsageError, match=words):
        machine.store.add("a", machine.cards("nvidia.com/gpu=0"), [amount], machine.cache)
    assert not (machine.state / "shares.json").exists()


def test_at_most_16_cards(tmp_path):
    machine = Machine(tmp_path, Inventory(devices=tuple(map(gpu, range(17)))))
    with pytest.raises(CdiUsageError, match="1 to 16 devices, not 17"):
        machine.share("a", *(f"nvidia.com/gpu={i}" for i in range(17)))


@pytest.mark.parametrize(("claim", "error"), [("none", CdiNotFoundError), ("../x", CdiUsageError)])
def test_removing_what_is_not_there(machine, claim, error):
    with pytest.raises(error):
        machine.store.remove(claim, machine.cache)


def test_a_share_that_cannot_be_written_is_not_counted(machine):
    machine.specs.joinpath("k8s.hami-core-gpu.project-hami.io-claim_a.yaml").mkdir()
    with pytest.raises(SpecWriteError):
        machine.share("a", "nvidia.com/gpu=0", memory=80 * GIB)
    assert machine.shares() == ()
    machine.share("b", "nvidia.com/gpu=0", memory=80 * GIB)


def test_directories_that_cannot_be_made(machine):
    (machine.hook / "vgpu").write_text("in the way")
    with pytest.raises(SpecWriteError, match="cannot be made"):
        machine.share("a", "nvidia.com/gpu=0")
    assert read_ledger(machine.state / "shares.json") == Ledger()


def test_a_reboot_takes_the_specs_and_list_brings_them_back(machine):
    machine.share("a", "nvidia.com/gpu=0", cores=40)
    (path,) = machine.specs.glob("k8s.*")
    before = path.read_bytes()
    path.unlink()
    (machine.hook / "vgpu/claims/a").rmdir()
    machine.shares()
    assert path.read_bytes() == before
    assert (machine.hook / "vgpu/claims/a").is_dir()


def test_a_share_follows_its_cards_specs(machine):
    machine.share("a", "nvidia.com/gpu=0")
    path = next(machine.specs.glob("k8s.*"))
    base = machine.specs / "nvidia.com-gpu.yaml"
    base.write_text(base.read_text().replace("major: 195", "major: 234"))
    machine.shares()
    assert "major: 234" in path.read_text()
    base.unlink()
    shares, notes = machine.store.list(machine.cache)
    assert [share.claim for share in shares] == ["a"]
    assert "could not be renewed: unresolvable CDI devices nvidia.com/gpu=0" in notes[0]
    assert path.exists()


def test_the_ledger_remembers_the_cards_memory(machine):
    machine.share("a", "nvidia.com/gpu=0")
    assert machine.store.remembered()["uuid GPU-0"] == 80 * GIB


class Shares(RuleBasedStateMachine):
    """Any sequence of adding and removing keeps the sums and the files in step."""

    @initialize()
    def start(self):
        import tempfile

        self.directory = tempfile.TemporaryDirectory()
        devices = (gpu(0, memory=16 * GIB), gpu(1, memory=16 * GIB))
        self.machine = Machine(Path(self.directory.name), Inventory(devices=devices))
        self.model = {}

    def teardown(self):
        if hasattr(self, "directory"):
            self.directory.cleanup()

    @rule(
        claim=st.sampled_from("abcde"),
        cards=st.sets(st.sampled_from([0, 1]), min_size=1),
        memory=st.integers(1, 17),
        cores=st.integers(0, 101),
        name=st.sampled_from(["{}", "GPU-{}", "gpu{}"]),
    )
    def add(self, claim, cards, memory, cores, name):
        devices = [f"nvidia.com/gpu={name.format(i)}" for i in cards]
        wanted = dict.fromkeys(cards, (memory, cores))
        others = [parts for other, parts in self.model.items() if other != claim]
        fits = cores <= 100 and all(
            sum(p[i][0] for p in others if i in p) + memory <= 16
            and (not cores or sum(p[i][1] for p in others if i in p) + cores <= 100)
            for i in cards
        )
        known = self.model.get(claim)
        try:
            self.machine.share(claim, *devices, memory=memory * GIB, cores=cores)
        except CdiError:
            assert not fits or (known is not None and known != wanted)
        else:
            assert fits
            assert known in (None, wanted)
            self.model[claim] = wanted

    @rule(claim=st.sampled_from("abcde"))
    def remove(self, claim):
        if claim in self.model:
            self.machine.store.remove(claim, self.machine.cache)
            del self.model[claim]
        else:
            with pytest.raises(CdiNotFoundError):
                self.machine.store.remove(claim, self.machine.cache)

    @rule()
    def reboot(self):
        for path in self.machine.specs.glob("k8s.*"):
            path.unlink()
        self.machine.shares()

    @invariant()
    def files_say_what_was_handed_out(self):
        if not hasattr(self, "model"):
            return
        shares = read_ledger(self.machine.state / "shares.json").shares
        assert {share.claim for share in shares} == set(self.model)
        assert len(self.machine.spec_files()) == len(self.model)
        for index in (0, 1):
            used = usage([f"uuid GPU-{index}"], shares)
            assert used.memory <= 16 * GIB
            assert used.cores <= 100


TestShares = Shares.TestCase
TestShares.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


class Crash(BaseException):
    """Stands for a power cut: nothing may catch it."""


STEPS = ["write_ledger", "write_spec", "remove_spec", "_make_directories", "_drop"]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("occurrence", [1, 2])
@pytest.mark.parametrize("action", ["add", "remove"])
def test_a_crash_at_every_step(machine, monkeypatch, action, step, occurrence, after):
    machine.share("kept", "nvidia.com/gpu=0", memory=20 * GIB, cores=20)
    if action == "remove":
        machine.share("a", "nvidia.com/gpu=0", memory=60 * GIB, cores=80)
    real = getattr(store_module, step)
    count = 0

    def crashing(*args, **options):
        nonlocal count
        count += 1
        if count == occurrence and not after:
            raise Crash
        result = real(*args, **options)
        if count == occurrence:
            raise Crash
        return result

    monkeypatch.setattr(store_module, step, crashing)
    try:
        if action == "add":
            machine.share("a", "nvidia.com/gpu=0", memory=60 * GIB, cores=80)
        else:
            machine.store.remove("a", machine.cache)
    except Crash:
        pass
    monkeypatch.undo()
    require_consistent(machine)
    with pytest.raises(ShareError):
        machine.share("greedy", "nvidia.com/gpu=0", memory=61 * GIB)
    # The next command settles it, and the same command again succeeds.
    if action == "add":
        machine.share("a", "nvidia.com/gpu=0", memory=60 * GIB, cores=80)
        assert len(machine.spec_files()) == 2
    else:
        machine.shares()
        if any(share.claim == "a" for share in machine.shares()):
            machine.store.remove("a", machine.cache)
        assert len(machine.spec_files()) == 1
        machine.share("b", "nvidia.com/gpu=0", memory=60 * GIB, cores=80)


_WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from cdi.inventory import Inventory
from cdi.errors import CdiError
from tests.cdi.shares_machine import GIB, Machine, gpu
machine = Machine(Path({directory!r}), Inventory(devices=(gpu(0), gpu(1))))
print("ready", flush=True)
import itertools
for i in itertools.count({start}):
    claim = f"c{{i % 7}}"
    try:
        machine.share(claim, "nvidia.com/gpu=0", memory=15 * GIB, cores=20)
    except CdiError:
        pass
    try:
        machine.store.remove(f"c{{(i + 3) % 7}}", machine.cache)
    except CdiError:
        pass
"""


def start_worker(machine, start):
    code = _WORKER.format(root=str(ROOT), directory=str(machine.root), start=start)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_killed_at_random_moments(machine):
    chance = random.Random(7)
    for round_ in range(8):
        process = start_worker(machine, round_ * 5)
        time.sleep(chance.uniform(0.0, 0.12))
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        process.stdout.close()
        require_consistent(machine)
        shares = machine.shares()  # settles what the kill interrupted
        assert len(machine.spec_files()) == len(shares)
        assert set(os.listdir(machine.state)) <= {"shares.json", "shares.lock", ".shares.json.tmp"}


def test_two_at_once(machine):
    workers = [start_worker(machine, start) for start in (0, 3)]
    try:
        for _ in range(8):
            require_consistent_now(machine)
            time.sleep(0.03)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait(10)
            worker.stdout.close()
    machine.shares()
    require_consistent(machine)


def require_consistent_now(machine):
    with ledger_module.locked(machine.state) as file:
        ledger = read_ledger(file)
        assert usage(["uuid GPU-0"], ledger.shares).memory <= 80 * GIB
        assert set(machine.spec_files()) <= {Path(share.path).name for share in ledger.shares}
