"""``make soak``: random changes, kills and faults, while the invariants are looked at.

SOAK_MINUTES=30 and SOAK_SEED=1 in the environment; the report goes to stdout as JSON. It ends with
1 at the first breach.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import grpc

from modelpack.errors import ModelpackError
from tests.soak.checking import Checker, Mounts
from tests.soak.world import BUDGET_MIB, MIB, NAMES, World
from tests.support.daemonnode import place_on
from tests.support.daemonprocess import DaemonProcess
from tests.support.faultregistry import FaultRegistry
from tests.support.node import Node
from tests.support.nodestate import assert_nothing_unfinished
from tests.support.registries import DockerRegistry

# The last part has no kills, so that one process lives long enough for its memory to tell.
_QUIET_SHARE = 0.4
_MAX_GROWTH = 40 * MIB
_MAX_MEMORY = 512 * MIB


class Soak:
    """What can happen, and doing some of it."""

    def __init__(self, node: Node, world: World, daemon: DaemonProcess, chance: random.Random):
        self.node = node
        self.world = world
        self.daemon = daemon
        self.chance = chance
        self.counts: Counter[str] = Counter()
        self.place = place_on(node)

    def happenings(self, *, kills: bool) -> list[tuple[str, float, Callable[[], None]]]:
        """Return what can happen, with weights."""
        found = [
            ("desired set changes", 4, self.change),
            ("tag moves", 3, lambda: self.world.move_tag(self.chance)),
            ("registry fault", 3, lambda: self.world.fault(self.chance)),
            ("registry recovers", 2, self.world.registry.faults.clear),
            ("registry away", 1, self.outage),
            ("image removed by hand", 1, self.remove),
            ("containerd killed", 0.5, lambda: self.node.restart(signal.SIGKILL)),
        ]
        if kills:
            found += [
                ("daemon killed", 3, lambda: self.restart(signal.SIGKILL)),
                ("daemon stopped", 1, lambda: self.restart(signal.SIGTERM)),
            ]
        return found

    def step(self, mounts: Mounts, *, kills: bool) -> None:
        """Do something, mount something, wait a little."""
        names, weights, acts = zip(*self.happenings(kills=kills), strict=True)
        number = self.chance.choices(range(len(names)), weights)[0]
        # A mount must not meet its own containerd's restart: it would only end.
        if names[number] == "containerd killed":
            mounts.join()
        acts[number]()
        self.counts[names[number]] += 1
        if self.chance.random() < 0.6:
            self.mount(mounts)
        time.sleep(self.chance.uniform(0.2, 3))

    def change(self) -> None:
        """Want other models."""
        rate = self.chance.choice([None, "4M", "20M"])
        self.daemon.reload(models=self.world.wanted(self.chance), limitRate=rate)

    def outage(self) -> None:
        """Have the registry vanish for some seconds."""
        self.world.registry.stop()
        time.sleep(self.chance.uniform(0.5, 8))
        self.world.registry.start()

    def remove(self) -> None:
        """Remove an image as an administrator might."""
        models = self.place.models()
        if models:
            self.node.remove_image(self.chance.choice(models).names[0])

    def restart(self, how: signal.Signals) -> None:
        """End the daemon and start it again."""
        self.daemon.stop(how)
        self.daemon.start()

    def mount(self, mounts: Mounts) -> None:
        """Mount a version by a name that it has."""
        try:
            models = self.place.models()
        except ModelpackError:
            return
        if models:
            model = self.chance.choice(models)
            by_digest = next(name for name in model.names if "@" in name)
            mounts.start(by_digest, str(model.digest), self.chance.uniform(0, 6))


def run(directory: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Soak; return the report."""
    for name in ("registry", "node", "world"):
        (directory / name).mkdir()
    os.environ["XDG_CACHE_HOME"] = str(directory / "cache")
    with (
        DockerRegistry(directory / "registry") as plain,
        Node(directory / "node", plain) as node,
        FaultRegistry() as registry,
    ):
        world = World(directory / "world", registry)
        world.fill()
        daemon = DaemonProcess(
            directory / "daemon", node, models=[], budget=f"{BUDGET_MIB}Mi", policy=str(world.policy),
            concurrency=3,
        )  # fmt: skip
        soak = Soak(node, world, daemon, random.Random(seed))
        daemon.start()
        try:
            return _run(soak, minutes, seed)
        finally:
            daemon.stop()


def _run(soak: Soak, minutes: float, seed: int) -> dict[str, Any]:
    began = time.monotonic()
    quiet_at = began + 60 * minutes * (1 - _QUIET_SHARE)
    daemon = soak.daemon
    with Checker(soak.node, soak.world, lambda: daemon.pid if daemon.alive else None) as checker:
        mounts = Mounts(soak.node, soak.world, checker.breach)
        soak.change()
        while time.monotonic() < began + 60 * minutes and not checker.breaches:
            if not daemon.alive:
                checker.breach(f"the daemon has ended\n{daemon.tail()}")
                break
            try:
                soak.step(mounts, kills=time.monotonic() < quiet_at)
            except (ModelpackError, grpc.RpcError) as error:
                soak.counts[f"not done: {type(error).__name__}"] += 1
        mounts.join()
        if not checker.breaches:
            _settle(soak, checker)
    if "Traceback" in daemon.logs():
        checker.breach("a traceback in the log")
    memory = _memory(checker, quiet_at)
    if memory["growth"] > _MAX_GROWTH or memory["most"] > _MAX_MEMORY:
        checker.breach(f"memory is not flat: {memory}")
    return {
        "seed": seed,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "breaches": checker.breaches,
        "happened": dict(soak.counts),
        "looks": checker.looks,
        "mounts": mounts.made,
        "versions_seen": len(checker.seen),
        "most_used_bytes": checker.most_used,
        "budget_bytes": BUDGET_MIB * MIB,
        "memory_bytes": memory,
    }


def _settle(soak: Soak, checker: Checker) -> None:
    """Stop disturbing: the daemon must finish alone, and leave nothing unfinished."""
    soak.world.registry.faults.clear()
    for name in NAMES[:2]:
        soak.world.move_to_newest(name)
    wanted = [
        {"name": name, "ref": soak.world.reference(name), "resolve": "10s"} for name in NAMES[:2]
    ]
    soak.daemon.reload(models=wanted, limitRate=None)
    try:
        soak.daemon.wait_until_idle(180)
        soak.daemon.wait_until_clean(lambda: soak.place.unfinished_bytes() == 0)
        soak.daemon.stop()
        assert_nothing_unfinished(soak.node)
    except AssertionError as error:
        checker.breach(f"it does not come to rest: {error}")


def _memory(checker: Checker, quiet_at: float) -> dict[str, int]:
    """Return the most that was resident, and how much the last process grew."""
    last = [size for at, _, size in checker.memory if at > quiet_at]
    quarter = max(1, len(last) // 4)
    growth = median(last[-quarter:]) - median(last[quarter : 2 * quarter]) if last[4:] else 0
    return {
        "most": max((size for _, _, size in checker.memory), default=0),
        "growth": int(growth),
        "samples": len(checker.memory),
    }


def main() -> int:
    """Run for SOAK_MINUTES."""
    minutes = float(os.environ.get("SOAK_MINUTES", "30"))
    seed = int(os.environ.get("SOAK_SEED", "1"))
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        report = run(Path(directory), minutes, seed)
        if report["breaches"]:
            sys.stderr.write((Path(directory) / "daemon/daemon.log").read_text()[-20_000:])
    print(json.dumps(report, indent=1))
    return int(bool(report["breaches"]))


if __name__ == "__main__":
    sys.exit(main())
