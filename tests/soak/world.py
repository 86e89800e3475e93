"""The models of the soak: several versions each, signed or not, at a registry that can fail.

world = World(directory, registry)
world.move_tag(chance)
"""

import random
from dataclasses import dataclass, field
from pathlib import Path

import modelpack
from tests.support.faultregistry import Fault, FaultRegistry
from tests.support.models import one_shard, write_files
from tests.support.samplemodel import digests_of
from tests.support.trust import TrustCommand

MIB = 1024 * 1024
NAMES = ("a", "b", "c", "d", "e")
VERSIONS = 3
"""Of each model, between which its tag moves; one more is for the end."""
BUDGET_MIB = 64
GROUP = "soak"


@dataclass
class World:
    """What there is to want, and what must never be seen."""

    directory: Path
    registry: FaultRegistry
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    """SHA-256 of every file by its path, for each version that may be visible, by digest."""
    forbidden: set[str] = field(default_factory=set)
    """Digests that nobody has signed."""
    policy: Path = Path()

    def fill(self) -> None:
        """Make and push everything."""
        signer = TrustCommand(self.directory / "signer")
        private, public = signer.key_pair("team")
        for number, name in enumerate(NAMES):
            for version in range(VERSIONS + 1):
                model = self._write(name, number, version)
                pushed = modelpack.push(model, self.reference(name, f"v{version}"))
                pinned = f"{self.repository(name)}@{pushed.digest}"
                signer.json("sign", pinned, "--key", private)
                self.files[pushed.digest] = {
                    path: digest for path, (_, digest) in digests_of(model).items()
                }
            modelpack.copy(self.reference(name, "v0"), self.reference(name, "latest"))
        bad = self._write("bad", 9, 0)
        self.forbidden.add(modelpack.push(bad, self.reference("bad", "latest")).digest)
        self.policy = signer.policy(
            f"rules:\n  - match: {self.registry.host}/{GROUP}/**\n    signers: [{{key: {public}}}]\n"
        )

    def repository(self, name: str) -> str:
        """Return a model's repository."""
        return f"{self.registry.host}/{GROUP}/{name}"

    def reference(self, name: str, tag: str = "latest") -> str:
        """Return a model's reference."""
        return f"{self.repository(name)}:{tag}"

    def wanted(self, chance: random.Random) -> list[dict]:
        """Return a random desired set; what is unsigned is often in it."""
        names = chance.sample(NAMES, chance.randint(1, len(NAMES)))
        names += ["bad"] if chance.random() < 0.5 else []
        return [
            {
                "name": name,
                "ref": self.reference(name),
                "resolve": "10s",
                "priority": chance.randint(0, 9),
            }
            for name in names
        ]

    def move_tag(self, chance: random.Random) -> None:
        """Point a model's tag at another of its versions; going back, the policy refuses."""
        name = chance.choice(NAMES)
        version = f"v{chance.randrange(VERSIONS)}"
        modelpack.copy(self.reference(name, version), self.reference(name))

    def move_to_newest(self, name: str) -> None:
        """Point a model's tag at a version that no node has seen, so that it is not going back."""
        modelpack.copy(self.reference(name, f"v{VERSIONS}"), self.reference(name))

    def fault(self, chance: random.Random) -> None:
        """Have some of the next requests go wrong."""
        times = chance.randint(1, 20)
        self.registry.faults.add(
            chance.choice(
                [
                    Fault.status(503, times=times),
                    Fault.status(500, kind="manifest", times=times),
                    Fault.status(404, kind="manifest", times=times),
                    Fault.drop(times=times),
                    Fault.truncate(after=MIB, kind="blob", times=times),
                    Fault.corrupt(offset=chance.randrange(MIB), kind="blob", times=times),
                    Fault.stall(after=100_000, seconds=15, kind="blob", times=min(times, 3)),
                    Fault.slow(2 * MIB, kind="blob", times=times),
                ]
            )
        )

    def _write(self, name: str, number: int, version: int) -> Path:
        """Write a version: 8 to 20 MiB, of which a part is the same in each."""
        size = 4 + 3 * number % 8
        kept = range(number * 1000, number * 1000 + size)
        own = range(number * 1000 + 100 + version * 50, number * 1000 + 100 + version * 50 + size)
        return write_files(
            self.directory / "models" / f"{name}-{version}",
            {
                "kept.safetensors": one_shard(kept, size=MIB),
                "own.safetensors": one_shard(own, size=MIB),
                "config.json": f'{{"version": {version}}}'.encode(),
            },
        )
