"""The daemon: one loop that decides, threads that do, one instance for each store.

Owns time, threads, reloading and stopping. What is decided is ``core.py``'s, doing it
``performing.py``'s. The loop itself never touches the network or the runtime, so that it comes
round whatever hangs; every task runs in a thread of its own and ends in an outcome.

    with Daemon.open(Path("/etc/modelpack/daemon.yaml"), open_node=open_node) as daemon:
        daemon.run()

``stop`` and ``reload`` may be called from a signal handler. After ``stop`` transfers end at their
next piece, what is verified is kept, and ``run`` returns within ``STOP_SECONDS``.
"""

import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Self

from modelpack._version import __version__
from modelpack.errors import ModelpackError
from modelpack.prefetch import commands
from modelpack.prefetch.actions import Abandon, Evict, Install, Pin
from modelpack.prefetch.config import DaemonConfig, Network, RuntimeOptions
from modelpack.prefetch.core import Clock, Core, Job
from modelpack.prefetch.gates import Gates
from modelpack.prefetch.node import Node
from modelpack.prefetch.notify import Notifier
from modelpack.prefetch.performing import Outcome, Tools, perform
from modelpack.prefetch.picture import budget_status, model_statuses
from modelpack.prefetch.reloading import Configuration, find_store
from modelpack.prefetch.state import Store
from modelpack.prefetch.status import DaemonStatus, RuntimeStatus, Stage
from modelpack.ratelimit import RateLimiter

_logger = logging.getLogger(__name__)

# Between two looks at the configuration's files: a kubelet takes a minute to swap them anyway.
RELOAD_EVERY = 5.0
# The loop comes round this often without any event, and shows new figures of transfers.
BEAT = 1.0
# How long a stop waits for transfers: well below systemd's 90 s and Kubernetes' 30 s.
STOP_SECONDS = 20.0
# Removals and pins at once.
_AT_ONCE = 4

OpenNode = Callable[[RuntimeOptions, Network], Node]


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since some moment."""
        return time.monotonic()


class Daemon:
    """One daemon; ``status`` and the calls of ``Control`` are for any thread."""

    def __init__(
        self,
        store: Store,
        configuration: Configuration,
        gates: Gates,
        *,
        open_node: OpenNode,
        clock: Clock,
        jitter: Callable[[], float],
        notifier: Notifier,
    ) -> None:
        """Prepare; ``open`` is simpler."""
        self._configuration = configuration
        self._open_node = open_node
        self._clock = clock
        self._notifier = notifier
        self._held = contextlib.ExitStack()
        self._held.enter_context(store)
        self.config = configuration.start()
        self._lock = threading.Lock()
        self._core = Core(store, self.config, clock=clock, jitter=jitter)
        self._tools = Tools(
            node=open_node(self.config.runtime, self.config.network),
            open_gate=gates.open,
            limiter=RateLimiter(None),
            scrub_limiter=RateLimiter(self.config.scrub.rate),
        )
        self._events: SimpleQueue[tuple[Job, Outcome] | None] = SimpleQueue()
        self._few = threading.BoundedSemaphore(_AT_ONCE)
        self._stopping = threading.Event()
        self._reload = threading.Event()
        self._polled_at = clock.monotonic()
        self._started_at = self._alive_at = clock.now()
        self._picture = self._take_picture()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        open_node: OpenNode,
        environ: Mapping[str, str] = os.environ,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
        notifier: Notifier | None = None,
    ) -> Self:
        """Return the daemon of a configuration, which is the store's only one from then on.

        Raises:
            UsageError, NotFoundError: the configuration is bad and there was no good one, or
                another daemon has the store.
        """
        times = clock or SystemClock()
        gates = Gates(environ)
        store = Store(find_store(path, environ))
        try:
            configuration = Configuration(path, store, gates, environ=environ, now=times.now)
            return cls(
                store,
                configuration,
                gates,
                open_node=open_node,
                clock=times,
                jitter=jitter,
                notifier=notifier or Notifier(None),
            )
        except BaseException:
            store.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._held.close()

    def run(self) -> bool:
        """Keep the node's models until ``stop``; tell whether everything ended in time."""
        _logger.info("begins on node %s", self.config.identity.name)
        self._round()
        self._notifier.ready(self._summary())
        while not self._stopping.is_set():
            self._take_events(
                BEAT if self._notifier.beat is None else min(BEAT, self._notifier.beat)
            )
            self._round()
        return self._wind_down()

    def stop(self) -> None:
        """Have ``run`` return; safe in a signal handler."""
        self._stopping.set()
        self._events.put(None)

    def reload(self) -> None:
        """Have the configuration read again now; safe in a signal handler."""
        self._reload.set()
        self._events.put(None)

    def status(self) -> DaemonStatus:
        """Return what the loop saw last; never waits for anything."""
        return replace(self._picture, now=self._clock.now(), stopping=self._stopping.is_set())

    def hold(self, name: str) -> str:
        """See ``Control.hold``."""
        return self._command(lambda: commands.hold(self._core.memory, name))

    def release(self, name: str) -> str:
        """See ``Control.release``."""
        return self._command(lambda: commands.release(self._core.memory, name))

    def rollback(self, name: str) -> str:
        """See ``Control.rollback``."""
        core = self._core
        return self._command(lambda: commands.rollback(core.memory, name, steady=core.steady))

    def refresh(self, name: str | None) -> str:
        """See ``Control.refresh``."""
        return self._command(lambda: commands.refresh(self._core.memory, name))

    def scrub(self, name: str | None) -> str:
        """See ``Control.scrub``."""
        return self._command(lambda: commands.scrub(self._core.memory, name))

    def _command(self, change: Callable[[], str]) -> str:
        """Make a change that outlives the daemon, and have the loop act on it."""
        with self._lock:
            said = change()
            if not self._core.save():
                raise ModelpackError(f"{said}; but a restart forgets it: {self._core.trouble}")
        _logger.info("asked to: %s", said)
        self._events.put(None)
        return said

    def _round(self) -> None:
        """Come round once: follow the configuration, decide, start, show."""
        self._follow_configuration()
        self._set_rates()
        with self._lock:
            jobs = self._core.advance()
            self._alive_at = self._clock.now()
            self._picture = self._take_picture()
        for job in jobs:
            self._begin(job)
        self._notifier.alive()
        self._notifier.status(self._summary())

    def _follow_configuration(self) -> None:
        asked = self._reload.is_set()
        now = self._clock.monotonic()
        if not asked and now - self._polled_at < RELOAD_EVERY:
            return
        self._reload.clear()
        self._polled_at = now
        if asked:
            self._notifier.reloading()
        config = self._configuration.reload() if asked else self._configuration.poll()
        if config is not None:
            _logger.info("a configuration has come into force; %d models", len(config.models))
            self._apply(config)
        if asked:
            self._notifier.ready(self._summary())

    def _apply(self, config: DaemonConfig) -> None:
        if config.network != self.config.network:
            try:
                node = self._open_node(config.runtime, config.network)
            except ModelpackError as error:
                _logger.error("registries are reached as before: %s", error)  # noqa: TRY400
            else:
                self._tools = replace(self._tools, node=node)
        self._tools.scrub_limiter.set_rate(config.scrub.rate)
        with self._lock:
            self.config = config
            self._core.configure(config)
            # What a policy or a bound refused may be let through now.
            self._core.try_refused_again()

    def _set_rates(self) -> None:
        rate = self.config.rates.at(self._clock.now(), self.config.zone)
        if rate != self._tools.limiter.rate:
            self._tools.limiter.set_rate(rate)

    def _begin(self, job: Job) -> None:
        thread = threading.Thread(
            target=self._work, args=(job, self._tools), name=f"modelpack-{type(job.task).__name__}"
        )
        # What hangs in a system call must not keep the process from ending.
        thread.daemon = True
        thread.start()

    def _work(self, job: Job, tools: Tools) -> None:
        # Removals come in numbers, and the runtime does them one after another anyway.
        crowd = isinstance(job.task, Evict | Abandon | Pin)
        with self._few if crowd else contextlib.nullcontext():
            outcome = perform(job.task, tools, job.transfer)
        for warning in job.transfer.warnings:
            name = getattr(job.task, "name", None)
            _logger.warning("%s", warning, extra={"model": name})
        self._events.put((job, outcome))

    def _take_events(self, wait: float) -> None:
        """Wait for an event, and take it and what came with it."""
        timeout: float | None = wait
        while True:
            try:
                event = self._events.get(timeout=timeout) if timeout else self._events.get_nowait()
            except Empty:
                return
            timeout = None
            if event is not None:
                with self._lock:
                    self._core.finish(*event)

    def _wind_down(self) -> bool:
        """Stop what runs and keep what was done; tell whether all of it ended."""
        self._notifier.stopping()
        _logger.info("stops")
        deadline = self._clock.monotonic() + STOP_SECONDS
        with self._lock:
            self._core.stop_transfers()
        while self._core.jobs and self._clock.monotonic() < deadline:
            self._take_events(0.1)
            self._notifier.alive()
        with self._lock:
            left = [type(job.task).__name__ for job in self._core.jobs]
            self._core.save()
        if left:
            _logger.warning("ends although this still runs: %s", ", ".join(left))
        return not left

    def _summary(self) -> str:
        models = self._picture.models
        ready = sum(model.digest is not None for model in models)
        running = sum(isinstance(job.task, Install) for job in self._core.jobs)
        trouble = sum(
            model.stage in {Stage.FAILED, Stage.REFUSED, Stage.INSUFFICIENT_SPACE}
            for model in models
        )
        text = f"{ready} of {len(models)} models are ready"
        text += f", {running} on their way" if running else ""
        return text + (f", {trouble} in trouble" if trouble else "")

    def _take_picture(self) -> DaemonStatus:
        core = self._core
        now = self._clock.now()
        trouble = core.memory.observation.trouble
        configuration = self._configuration.status
        return DaemonStatus(
            node=self.config.identity.name,
            version=__version__,
            started_at=self._started_at,
            now=now,
            alive_at=self._alive_at,
            models=model_statuses(core, now=now),
            budget=budget_status(core),
            configuration=configuration,
            runtime=RuntimeStatus(
                kind=self.config.runtime.kind, reachable=trouble is None, reason=trouble or ""
            ),
            totals=replace(
                core.memory.totals,
                reloads=max(0, configuration.generation - 1),
                failed_reloads=self._configuration.failed_reloads,
            ),
        )
