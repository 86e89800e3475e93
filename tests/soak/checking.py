"""What must hold at every moment of the soak, looked at from outside the daemon.

Owns the invariants: the budget holds; nothing unsigned has a name; what is mounted stays, whole;
memory does not grow. A breach is kept, with the moment, and ends the soak.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc

from modelpack.errors import ModelpackError
from modelpack.prefetch.node import used_bytes
from tests.soak.world import BUDGET_MIB, MIB, World
from tests.support.daemonnode import place_on
from tests.support.node import Node

# Two questions are not one picture: a version may come or go in between.
_LOOKS = 4
_EVERY = 0.5


@dataclass
class Checker:
    """Looks on in a thread of its own; a context manager."""

    node: Node
    world: World
    daemon_pid: Callable[[], int | None]
    breaches: list[str] = field(default_factory=list)
    looks: int = 0
    most_used: int = 0
    seen: set[str] = field(default_factory=set)
    """The versions that were visible at some time."""
    memory: list[tuple[float, int, int]] = field(default_factory=list)
    """Time, process id, resident bytes."""

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def breach(self, what: str) -> None:
        """Keep a breach."""
        self.breaches.append(f"{time.strftime('%H:%M:%S')} {what}")

    def _run(self) -> None:
        place = place_on(self.node)
        while not self._stop.wait(_EVERY):
            self._measure()
            try:
                self._look(place)
            except (ModelpackError, grpc.RpcError, AssertionError):
                continue  # containerd restarts

    def _look(self, place) -> None:
        used = []
        for _ in range(_LOOKS):
            models = place.models()
            unfinished = place.unfinished_bytes()
            used.append(used_bytes(models) + unfinished)
            if used[-1] <= BUDGET_MIB * MIB:
                break
        self.looks += 1
        self.most_used = max(self.most_used, min(used))
        if min(used) > BUDGET_MIB * MIB:
            took = ", ".join(f"{model.names[0]} {used_bytes([model]):,}" for model in models)
            self.breach(
                f"{min(used):,} bytes in a budget of {BUDGET_MIB * MIB:,}: {took}, "
                f"unfinished {unfinished:,}"
            )
        for model in models:
            self.seen.add(str(model.digest))
            if str(model.digest) not in self.world.files:
                self.breach(f"{model.names} is visible as {model.digest}, which nobody signed")

    def _measure(self) -> None:
        pid = self.daemon_pid()
        try:
            status = Path(f"/proc/{pid}/status").read_text() if pid else ""
        except FileNotFoundError:
            return
        for line in status.splitlines():
            if line.startswith("VmRSS:"):
                self.memory.append((time.monotonic(), pid or 0, int(line.split()[1]) * 1024))


@dataclass
class Mounts:
    """Containers that mount models for a while, each in a thread, and look at every file."""

    node: Node
    world: World
    breach: Callable[[str], None]
    made: int = 0
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, name: str, digest: str, seconds: float) -> None:
        """Mount a version under a name that it has now."""
        thread = threading.Thread(target=self._mount, args=(name, digest, seconds))
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        """Wait until all have ended."""
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _mount(self, name: str, digest: str, seconds: float) -> None:
        try:
            with self.node.container(image_volumes={"/models": name}) as container:
                self.made += 1
                until = time.monotonic() + seconds
                while True:
                    self._read(container, name, digest)
                    if time.monotonic() > until:
                        return
                    time.sleep(1)
        except (grpc.RpcError, AssertionError):
            return  # it was evicted before the mount, or containerd restarts

    def _read(self, container, name: str, digest: str) -> None:
        find = ["find", "/models", "-type", "f", "-exec", "sha256sum", "{}", ";"]
        done = container.exec(find, check=False)
        seen = {
            path.removeprefix("/models/"): found
            for found, path in (line.split(maxsplit=1) for line in done.stdout.splitlines())
        }
        files = {path: one for path, one in seen.items() if not path.startswith(".modelpack/")}
        if done.returncode:
            self.breach(f"{name}: a mounted file could not be read: {done.stderr[:200]}")
        elif files != self.world.files[digest]:
            self.breach(f"{name} mounts other files than {digest} has")
