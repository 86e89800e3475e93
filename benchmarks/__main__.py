"""Run the scenarios: servers up, contestants in turn, results written."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import measure, report
from benchmarks.contestants import (
    MODELPACK,
    Contestant,
    Published,
    pullers,
    pushers,
    starters,
)
from benchmarks.latency import LatencyRelay
from benchmarks.report import OURS, Outcome
from benchmarks.scenarios import SCENARIOS, Scenario
from tests.support.certificates import PrivateCA
from tests.support.nginx import Nginx, limit_rate, proxy
from tests.support.registries import DockerRegistry

_QUICK_CONTESTANTS = ("modelpack", "bare floor", "oras")
_LATENCY_SECONDS = 0.02


class Bench:
    """The work directory, the registry, and what has been pushed to it."""

    def __init__(self, work: Path, registry: DockerRegistry, *, fill: bool) -> None:
        """Use a running registry."""
        self.work = work
        self.registry = registry
        self._kept = work / "kept"
        self._filler = measure.PageCacheFiller(work / "filler") if fill else None

    def run(self, scenario: Scenario, *, quick: bool) -> Outcome:
        """Time every contestant of a scenario in turn."""
        model = scenario.model(self.work / "models")
        size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
        outcome = Outcome(scenario=scenario, model_bytes=size)
        with self._serve(scenario) as host:
            ca_file = self._ca.file if scenario.server == "tls" else None
            published = self._publish(scenario, model, host, ca_file)
            table = _table(scenario, model)
            wanted = [
                table[name]
                for name in scenario.contestants
                if not quick or name in _QUICK_CONTESTANTS or scenario.kind == "start"
            ]
            outcome.missing = [item.name for item in wanted if not item.is_here]
            here = [item for item in wanted if item.is_here]
            repeats = scenario.quick_repeats if quick else scenario.repeats
            with _limited(scenario) as memory:
                outcome.samples = {item.name: [] for item in here}
                warm_up = 1 if scenario.warm_up and not quick else 0
                for turn in range(repeats + warm_up):
                    # Whoever comes first in one turn comes last in the next; pushes build on others.
                    first = turn % len(here) if scenario.kind == "pull" else 0
                    for contestant in here[first:] + here[:first]:
                        counted = turn >= warm_up
                        self._turn(scenario, contestant, published, outcome, memory, counted)
            outcome.samples = {name: found for name, found in outcome.samples.items() if found}
        shutil.rmtree(self._kept, ignore_errors=True)
        return outcome

    def _turn(
        self,
        scenario: Scenario,
        contestant: Contestant,
        published: Published,
        outcome: Outcome,
        memory: measure.MemoryLimit | None,
        counted: bool,
    ) -> None:
        """Run one contestant once, with the disk idle and the page cache full."""
        if contestant.name in outcome.failed:
            return
        destination = self.work / "destination"
        self._prepare(scenario, published, destination)
        target = published
        if scenario.kind.startswith("push") and contestant.name != "modelpack, unchanged":
            target = self._fresh_repository(published, scenario)
        if self._filler and scenario.kind not in {"present", "start"}:
            # What the one before left to be written, or discarded, is not this one's to wait for.
            os.sync()
            self._filler.fill()
        try:
            sample, output = measure.timed_run(
                contestant.argv(target, destination),
                env=contestant.environment(),
                memory=memory,
            )
        except measure.RunFailedError as error:
            outcome.failed[contestant.name] = str(error).replace("\n", " ")
            return
        if contestant.own_clock:
            sample = measure.Sample(
                seconds=float(output.split()[-1]),
                cpu_seconds=sample.cpu_seconds,
                peak_rss=sample.peak_rss,
                wire_bytes=sample.wire_bytes,
            )
        if counted:
            outcome.samples[contestant.name].append(sample)

    def _prepare(self, scenario: Scenario, published: Published, destination: Path) -> None:
        if scenario.kind == "present" and destination.exists():
            return
        if scenario.keep_outputs and destination.exists():
            self._kept.mkdir(exist_ok=True)
            destination.rename(self._kept / str(len(os.listdir(self._kept))))
        shutil.rmtree(destination, ignore_errors=True)
        destination.mkdir()
        if scenario.kind == "upgrade":
            self._modelpack("pull", self._reference("four-files"), str(destination), "-q")
        elif scenario.kind == "present":
            self._modelpack("pull", published.reference, str(destination), "-q")

    def _publish(
        self, scenario: Scenario, model: Path, host: str, ca_file: Path | None
    ) -> Published:
        if scenario.kind in {"upgrade", "push-changed"}:
            four = next(item for item in SCENARIOS if item.name == "four-files")
            self._push(four.model(self.work / "models"), self._reference("four-files"))
        reference = self._reference(scenario.name)
        self._push(model, reference)
        pushed = json.loads(self._modelpack("inspect", reference, "--json"))
        blobs = tuple((layer["digest"], layer["size"]) for layer in pushed["layers"][:-1])
        return Published(
            host=host,
            repository=f"bench/{scenario.name}",
            tag="v1",
            blobs=blobs,
            ca_file=ca_file,
        )

    def _fresh_repository(self, published: Published, scenario: Scenario) -> Published:
        """Empty the registry: blobs are shared by all its repositories."""
        self.registry.stop()
        shutil.rmtree(self.registry.storage, ignore_errors=True)
        self.registry.start()
        if scenario.kind == "push-changed":
            self._push(self.work / "models/four/model", published.reference)
        return published

    def _reference(self, name: str) -> str:
        return f"{self.registry.host}/bench/{name}:v1"

    def _push(self, model: Path, reference: str) -> None:
        self._modelpack("push", str(model), reference, "-q")

    def _modelpack(self, *arguments: str) -> str:
        done = subprocess.run([MODELPACK, *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"modelpack {arguments[0]}: {done.stderr}")
        return done.stdout

    @contextmanager
    def _serve(self, scenario: Scenario) -> Iterator[str]:
        """Yield the host to pull from, with the scenario's server before the registry."""
        if scenario.server == "registry":
            yield self.registry.host
            return
        if scenario.server == "latency":
            with LatencyRelay(self.registry.host, _LATENCY_SECONDS) as relay:
                yield relay.host
            return
        directory = Path(tempfile.mkdtemp(dir=self.work))
        self._ca = PrivateCA(directory)
        with ExitStack() as stack:
            if scenario.server == "tls":
                server = Nginx(directory, proxy(self.registry), tls=self._ca)
            else:
                server = Nginx(directory, proxy(self.registry, limit_rate("50m")))
            stack.enter_context(server)
            yield server.host


def _table(scenario: Scenario, model: Path) -> dict[str, Contestant]:
    if scenario.kind == "start":
        return starters()
    return pushers(model) if scenario.kind.startswith("push") else pullers()


@contextmanager
def _limited(scenario: Scenario) -> Iterator[measure.MemoryLimit | None]:
    if scenario.memory is None:
        yield None
        return
    limit = measure.MemoryLimit(int(measure.total_memory() * scenario.memory))
    try:
        yield limit
    finally:
        limit.close()


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("mode", choices=["quick", "full", "node"])
    parser.add_argument("--only", default="", help="scenario names, separated by commas")
    parser.add_argument("--work", type=Path, default=Path(".cache/benchmarks"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--no-fill", action="store_true", help="do not fill the page cache")
    arguments = parser.parse_args()
    quick = arguments.mode == "quick"
    only = set(filter(None, arguments.only.split(",")))
    chosen = [
        item for item in SCENARIOS if (item.name in only if only else item.quick or not quick)
    ]
    names = {item.name for item in SCENARIOS} | {"cold", "upgrade", "ten"}
    if unknown := only - names:
        parser.error(f"no scenario {', '.join(sorted(unknown))}")
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(work / "cache")
    # An installed program has been compiled; where this is set, every start would compile again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if arguments.mode == "node":
        from benchmarks import node  # noqa: PLC0415 - gRPC and root are for this mode alone

        return node.run(work, arguments.results, only, fill=not arguments.no_fill)
    outcomes = []
    machine = measure.machine()
    (work / "registry").mkdir(exist_ok=True)
    shutil.rmtree(work / "registry" / "data", ignore_errors=True)
    with DockerRegistry(work / "registry") as registry:
        bench = Bench(work, registry, fill=not arguments.no_fill)
        for scenario in chosen:
            print(f"… {scenario.title}", file=sys.stderr, flush=True)
            outcomes.append(bench.run(scenario, quick=quick))
            report.write(outcomes, machine, arguments.results, arguments.mode)
    print(report.markdown(outcomes, machine))
    return int(any(OURS in outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
