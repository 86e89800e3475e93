"""A node's containerd: modelpack's import against the runtime's own pull of the same image.

Owns what is timed on a node, and its report. The clock runs from the first command to the moment
when a container has read the beginning of every file of the mounted model, as a pod that starts
cold sees it. Both sides in turn, on an emptied node each time; the disk is what the node's
containerd takes more than before.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Self

import yaml

from benchmarks import measure
from benchmarks.contestants import MODELPACK
from benchmarks.models import MIB, changed_copy, sharded_model
from benchmarks.report import machine_line
from modelpack.errors import NetworkError
from modelpack.prefetch.web.client import fetch_status
from modelpack.stores.files import write_atomically
from tests.support.node import Node
from tests.support.nodestate import collect_garbage, disk_use
from tests.support.registries import DockerRegistry

OURS = "modelpack"
STOCK = "CRI PullImage"
# The import writes each byte once and does not hash in order.
_TIME_BAR = 0.40
_DISK_BAR = 0.55
_AT_ONCE = 10
_POLL_SECONDS = 0.05
# The beginning of every file, with what the tests' busybox has.
_READ_ALL = "find /models -type f | while read -r f; do read -r -n 64 x < $f || :; echo $f; done"

# Brings images to the node; inside it they are there.
Bring = Callable[[Sequence[str]], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One run on a node that did not have the model."""

    seconds: float
    """Until it could be read in a container."""
    pulled: float
    """Until the image was there."""
    disk_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """What is brought to the node, and what is there before."""

    name: str
    title: str
    references: tuple[str, ...]
    before: str | None = None
    by_daemon: bool = False
    """Whether our side is a running daemon that is told of them, not a command for each."""
    repeats: int = 3


@dataclass
class Outcome:
    """The samples of one scenario."""

    scenario: Scenario
    model_bytes: int
    samples: dict[str, list[Sample]] = field(default_factory=dict)


class NodeBench:
    """A registry with models, and a node."""

    def __init__(self, node: Node, fill: Callable[[], None]) -> None:
        """Use a running node; ``fill`` is called before each run."""
        self._node = node
        self._fill = fill
        self._control: _Daemon | None = None

    def run(self, scenario: Scenario, model_bytes: int) -> Outcome:
        """Time both sides in turn; the first turn warms up and is not counted."""
        outcome = Outcome(scenario=scenario, model_bytes=model_bytes)
        ours = self._daemon if scenario.by_daemon else self._imports
        sides: dict[str, Bring] = {OURS: ours, STOCK: self._pulls}
        with ExitStack() as stack:
            if scenario.by_daemon:
                self._control = stack.enter_context(_Daemon(self._node))
            for turn in range(scenario.repeats + 1):
                for name, bring in sides.items():
                    sample = self._once(scenario, bring)
                    print(f"  {name}: {sample.seconds:.2f} s", file=sys.stderr, flush=True)
                    if turn:
                        outcome.samples.setdefault(name, []).append(sample)
        return outcome

    def _once(self, scenario: Scenario, bring: Bring) -> Sample:
        if scenario.before is not None:
            with bring([scenario.before]):
                pass
        os.sync()
        self._fill()
        before = disk_use(self._node.root)
        started = time.perf_counter()
        with bring(scenario.references):
            pulled = time.perf_counter() - started
            volumes = {f"/models/{number}": ref for number, ref in enumerate(scenario.references)}
            with self._node.container(image_volumes=volumes) as container:
                container.exec(["sh", "-c", _READ_ALL])
                seconds = time.perf_counter() - started
            disk = disk_use(self._node.root) - before
        for reference in (*scenario.references, *filter(None, [scenario.before])):
            self._node.remove_image(reference)
        collect_garbage(self._node)
        return Sample(seconds=seconds, pulled=pulled, disk_bytes=disk)

    @contextmanager
    def _pulls(self, references: Sequence[str]) -> Iterator[None]:
        _at_once(self._node.pull_image, references)
        yield

    @contextmanager
    def _imports(self, references: Sequence[str]) -> Iterator[None]:
        _at_once(self._import, references)
        yield

    @contextmanager
    def _daemon(self, references: Sequence[str]) -> Iterator[None]:
        """Tell a running daemon of the models, and wait until it has them."""
        assert self._control is not None, "no daemon runs"
        self._control.want(references)
        yield
        self._control.want([])

    def _import(self, reference: str) -> None:
        command = [MODELPACK, "pull", reference, "--into", "containerd", "-q", "--no-pin"]
        done = subprocess.run(
            [*command, "--address", str(self._node.socket)], capture_output=True, text=True
        )
        if done.returncode != 0:
            sys.exit(f"modelpack pull: {done.stderr}")


class _Daemon:
    """A daemon that wants nothing until it is told, and keeps nothing then; a context manager."""

    def __init__(self, node: Node) -> None:
        self._store = node.root.parent / "daemon"
        shutil.rmtree(self._store, ignore_errors=True)
        self._store.mkdir()
        self._file = self._store / "daemon.yaml"
        self._log = self._store / "log"
        self._socket = node.socket
        self._write([])
        self._process = subprocess.Popen(
            [MODELPACK, "daemon", "--config", str(self._file)], stderr=self._log.open("wb")
        )

    def __enter__(self) -> Self:
        self._wait(0)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def want(self, references: Sequence[str]) -> None:
        """Change its configuration, and wait until it has these models and no others."""
        self._write(references)
        self._process.send_signal(signal.SIGHUP)
        self._wait(len(references))

    def _write(self, references: Sequence[str]) -> None:
        config = {
            "store": str(self._store),
            "budget": "100Gi",
            # What is not wanted any more goes at once.
            "watermarks": {"high": "0%", "low": "0%"},
            "listen": "127.0.0.1:0",
            "runtime": {"kind": "containerd", "address": str(self._socket)},
            "models": [{"ref": reference} for reference in references],
        }
        write_atomically(self._file, yaml.safe_dump(config).encode())

    def _wait(self, count: int) -> None:
        while True:
            if self._process.poll() is not None:
                sys.exit(f"modelpack daemon: {self._log.read_text()[-600:]}")
            try:
                status = fetch_status(self._store / "control.sock")
            except NetworkError:  # it has only just been started
                status = {"ready": False}
            found = [bool(model["digest"]) for model in status.get("models", [])]
            if status["ready"] and found == [True] * count:
                return
            time.sleep(_POLL_SECONDS)


def _at_once(pull: Callable[[str], object], references: Sequence[str]) -> None:
    threads = [threading.Thread(target=pull, args=(reference,)) for reference in references]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run(work: Path, results: Path, only: set[str], *, fill: bool) -> int:
    """Make the models, run the scenarios, write the report; return the exit status."""
    shutil.rmtree(work / "node", ignore_errors=True)
    shutil.rmtree(work / "registry", ignore_errors=True)
    for name in ("node", "registry"):
        (work / name).mkdir(parents=True)
    filler = measure.PageCacheFiller(work / "filler").fill if fill else lambda: None
    outcomes = []
    with DockerRegistry(work / "registry") as registry, _node(work / "node", registry) as node:
        bench = NodeBench(node, filler)
        for scenario, size in _scenarios(work / "models", registry.host, only):
            print(f"… {scenario.title}", file=sys.stderr, flush=True)
            outcomes.append(bench.run(scenario, size))
            _write(outcomes, results)
    print(markdown(outcomes, measure.machine()))
    return 0


def _write(outcomes: Sequence[Outcome], results: Path) -> None:
    results.mkdir(parents=True, exist_ok=True)
    (results / "node.md").write_text(markdown(outcomes, measure.machine()))
    (results / "node.json").write_text(as_json(outcomes, measure.machine()))


@contextmanager
def _node(directory: Path, registry: DockerRegistry) -> Iterator[Node]:
    with Node(directory, registry) as node:
        yield node


def _scenarios(models: Path, host: str, only: set[str]) -> Iterator[tuple[Scenario, int]]:
    """Yield the scenarios, their models made and pushed, with the models' sizes."""
    for make in (_cold, _upgrade, _ten):
        if not only or make.__name__.strip("_") in only:
            yield make(models, host)


def _cold(models: Path, host: str) -> tuple[Scenario, int]:
    model = sharded_model(models / "four", shards=4, shard_bytes=512 * MIB)
    scenario = Scenario(
        name="node-cold",
        title="Cold start to a mounted, readable ImageVolume, 4 files of 512 MiB",
        references=(_push(model, f"{host}/bench/cold:v1"),),
    )
    return scenario, _size(model)


def _upgrade(models: Path, host: str) -> tuple[Scenario, int]:
    old = sharded_model(models / "four", shards=4, shard_bytes=512 * MIB)
    new = changed_copy(old, models / "four-changed", 0.05)
    scenario = Scenario(
        name="node-upgrade",
        title="The same of a version with 5 % of the tensors changed, the earlier one there, "
        "4 files of 512 MiB",
        references=(_push(new, f"{host}/bench/upgrade:v2"),),
        before=_push(old, f"{host}/bench/upgrade:v1"),
    )
    return scenario, _size(new)


def _ten(models: Path, host: str) -> tuple[Scenario, int]:
    made = [
        sharded_model(models / f"ten-{number}", shards=1, shard_bytes=(64 + number) * MIB)
        for number in range(_AT_ONCE)
    ]
    scenario = Scenario(
        name="node-ten",
        title="Ten models of some 64 MiB in one container: a running daemon that is told of them, "
        "against ten pulls at once",
        references=tuple(
            _push(model, f"{host}/bench/ten-{number}:v1") for number, model in enumerate(made)
        ),
        by_daemon=True,
        repeats=2,
    )
    return scenario, sum(map(_size, made))


def _push(model: Path, reference: str) -> str:
    argv = [MODELPACK, "push", str(model), reference, "-q"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return reference


def _size(model: Path) -> int:
    return sum(path.stat().st_size for path in model.rglob("*") if path.is_file())


def markdown(outcomes: Sequence[Outcome], machine: Mapping[str, str]) -> str:
    """Return the report as Markdown."""
    head = f"# Benchmark results on a node\n\n{machine_line(machine)}\n\n"
    return head + tables(outcomes, "##")


def tables(outcomes: Sequence[Outcome], heading: str) -> str:
    """Return a table for each scenario, under headings that begin with ``heading``."""
    lines = []
    for outcome in outcomes:
        lines += [
            f"{heading} {outcome.scenario.title}",
            "",
            "| | seconds (min-max) | until pulled | our time / theirs | disk used | our disk / theirs |",
            "|---|---|---|---|---|---|",
        ]
        ours, theirs = outcome.samples[OURS], outcome.samples[STOCK]
        time_ratio = median(
            mine.seconds / other.seconds for mine, other in zip(ours, theirs, strict=True)
        )
        disk_ratio = _disk(ours) / _disk(theirs)
        for name, samples in outcome.samples.items():
            low, middle, high = measure.spread([sample.seconds for sample in samples])
            pulled = median(sample.pulled for sample in samples)
            compared = ("", "")
            if name == STOCK:
                compared = (_against(time_ratio, _TIME_BAR), _against(disk_ratio, _DISK_BAR))
            lines.append(
                f"| {name} | {middle:.2f} ({low:.2f}-{high:.2f}) | {pulled:.2f} | {compared[0]} | "
                f"{_disk(samples) / 1e6:,.0f} MB | {compared[1]} |"
            )
        lines.append("")
    return "\n".join(lines) + "\n"


def _disk(samples: Sequence[Sample]) -> float:
    return median(sample.disk_bytes for sample in samples)


def _against(value: float, bar: float) -> str:
    return f"{value:.2f} (≤ {bar:.2f} {'reached' if value <= bar else 'missed'})"


def as_json(outcomes: Sequence[Outcome], machine: Mapping[str, str]) -> str:
    """Return everything that was measured as JSON."""
    value = {
        "machine": dict(machine),
        "scenarios": [
            {
                "name": outcome.scenario.name,
                "title": outcome.scenario.title,
                "model_bytes": outcome.model_bytes,
                "samples": {
                    name: [asdict(sample) for sample in samples]
                    for name, samples in outcome.samples.items()
                },
            }
            for outcome in outcomes
        ],
    }
    return json.dumps(value, indent=1) + "\n"


def from_json(text: str) -> list[Outcome]:
    """Return the outcomes that ``as_json`` wrote."""
    return [
        Outcome(
            scenario=Scenario(name=item["name"], title=item["title"], references=()),
            model_bytes=item["model_bytes"],
            samples={
                name: [Sample(**sample) for sample in samples]
                for name, samples in item["samples"].items()
            },
        )
        for item in json.loads(text)["scenarios"]
    ]
