"""Plans for situations of every kind: bounds that hold in each, and tables of single decisions."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpack.digest import Digest
from modelpack.prefetch.actions import (
    Abandon,
    Evict,
    Install,
    Observation,
    Pin,
    Resolve,
    Scrub,
    Situation,
    Stop,
)
from modelpack.prefetch.config import Scrub as ScrubOptions
from modelpack.prefetch.node import Installed, Part, Resolution
from modelpack.prefetch.planning import MAX_RESOLVES, plan
from modelpack.prefetch.progress import Failure, Progress, Reservation, Version
from modelpack.prefetch.status import Stage
from modelpack.prefetch.windows import Window
from modelpack.reference import parse_reference
from tests.support.fleet import configuration, model
from tests.support.memorynode import manifest_of

NAMES = [f"registry.example/m{number}:v1" for number in range(4)]
MANIFESTS = {number: manifest_of({f"p{number}": 10}) for number in range(6)}
DIGESTS = [manifest.digest for manifest in MANIFESTS.values()]
STEADY = 100_000.0
LIMIT = 100


def resolution(digest, size):
    manifest = next(one for one in MANIFESTS.values() if one.digest == digest)
    return Resolution(manifest=manifest, total_bytes=size)


def version(digest, *, released=False, used=None):
    return Version(
        digest=digest, bytes=10, ready_at=0, ready_steady=1, released=released, used_steady=used
    )


@st.composite
def situations(draw):
    digests = st.sampled_from(DIGESTS)
    maybe = st.none() | digests
    options = [
        model(
            name,
            priority=draw(st.integers(-1, 1)),
            pin=draw(st.booleans()),
            hold=draw(st.booleans()),
            waves=draw(st.sampled_from([(), ((50, 1000),)])),
            windows=draw(st.sampled_from([(), (Window(start=0, end=60),)])),
        )
        for name in draw(st.sets(st.sampled_from(NAMES)))
    ]
    failures = st.none() | st.builds(
        Failure,
        kind=st.sampled_from(["network", "space", "policy"]),
        reason=st.just("why"),
        attempts=st.integers(1, 5),
        next_steady=st.sampled_from([STEADY - 1, STEADY + 1]),
        digest=maybe,
        free_bytes=st.none() | st.integers(0, 200),
    )
    progress = {
        name: Progress(
            name=name,
            reference=name,
            adopted=draw(maybe),
            previous=draw(maybe),
            candidate=draw(maybe),
            candidate_seen=STEADY - draw(st.sampled_from([1, 10_000])),
            versions=tuple(
                version(digest, released=draw(st.booleans()), used=draw(st.none() | st.just(5.0)))
                for digest in draw(st.sets(digests))
            ),
            turned_away=frozenset(draw(st.sets(digests, max_size=1))),
            held=draw(st.booleans()),
            failure=draw(failures),
            lookup=draw(failures),
            resolved=draw(st.none() | st.just(STEADY - 1)),
            scrubbed=draw(st.none() | st.just(STEADY - 1)),
            damaged=draw(maybe),
        )
        for name in NAMES
    }
    installed = tuple(
        Installed(
            digest=digest,
            names=tuple(draw(st.sets(st.sampled_from(NAMES), max_size=2))),
            parts=(
                Part(key=f"own-{digest}", bytes=draw(st.integers(0, 30))),
                Part(key="shared", bytes=10),
            ),
            pinned=draw(st.booleans()),
        )
        for digest in draw(st.sets(digests))
    )
    reservations = {
        digest: Reservation(name=draw(st.sampled_from(NAMES)), bytes=draw(st.integers(0, 40)))
        for digest in draw(st.sets(digests, max_size=2))
    }
    running = {}
    for name in draw(st.sets(st.sampled_from(NAMES), max_size=2)):
        digest = draw(digests)
        running[Install(name=name, reference=parse_reference(name), digest=digest, reserve=0)] = (
            STEADY
        )
    return Situation(
        config=configuration(
            *options,
            limit=LIMIT,
            high=draw(st.sampled_from([60, 100])),
            low=draw(st.sampled_from([40, 60])),
            concurrency=draw(st.integers(1, 2)),
            scrub=ScrubOptions(every=draw(st.sampled_from([None, 10.0]))),
        ),
        progress=progress,
        observation=Observation(
            installed=installed,
            mounted=frozenset(draw(st.sets(digests, max_size=2))),
            unfinished=draw(st.integers(0, 30)),
            free=draw(st.integers(0, 200)),
            trouble=draw(st.sampled_from([None, None, None, "away"])),
        ),
        now=12 * 3600.0,
        steady=STEADY,
        is_settled=draw(st.booleans()),
        resolutions={
            (name, digest): resolution(digest, draw(st.integers(1, 90)))
            for name in NAMES
            for digest in draw(st.sets(digests))
        },
        reservations=reservations,
        running=running,
    )


def of(found, kind):
    return [action for action in found.actions if isinstance(action, kind)]


@given(situations())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_plan_is_within_bounds(situation):
    found = plan(situation)
    config, seen = situation.config, situation.observation
    wanted = {one.name: one for one in config.models}
    assert found.verdicts.keys() == wanted.keys()
    assert plan(situation) == found
    # Once for each model or version, and no more at once than is configured.
    installs = [*situation.running, *of(found, Install)]
    assert sum(task.fetches for task in of(found, Install)) <= max(
        0, config.concurrency - len(situation.running)
    )
    assert len({task.name for task in installs}) == len(installs)
    assert len(of(found, Resolve)) <= MAX_RESOLVES
    assert len(of(found, Scrub)) <= 1
    # Whoever is told to stop runs.
    assert {one.name for one in of(found, Stop)} <= {task.name for task in situation.running}
    if seen.trouble is not None:
        assert not of(found, Install | Evict | Abandon | Pin | Scrub)
    if not situation.is_settled:
        assert not of(found, Evict | Abandon)
        assert not any(task.fetches for task in of(found, Install))
    # Nothing mounted, desired, pinned by the configuration, or of others, is evicted.
    gone = {task.digest for task in of(found, Evict)}
    assert not gone & seen.mounted
    ours = {one.digest for each in situation.progress.values() for one in each.versions}
    assert gone <= ours
    for name, options in wanted.items():
        progress = situation.progress[name]
        assert progress.adopted not in gone
        if options.pin:
            assert not gone & {one.digest for one in progress.versions}
    for one in seen.installed:
        if one.pinned and one.digest in gone:
            assert not any(
                version.released
                for each in situation.progress.values()
                for version in each.versions
                if version.digest == one.digest
            )
    # What is begun has its disk, after what is evicted first has gone.
    fetching = [task for task in of(found, Install) if task.fetches]
    if fetching:
        claimed = ours | {one.adopted for one in situation.progress.values() if one.name in wanted}
        claimed |= {task.digest for task in fetching}
        kept = [one for one in seen.installed if one.digest in claimed and one.digest not in gone]
        used = sum({part.key: part.bytes for one in kept for part in one.parts}.values())
        promised = {digest: one.bytes for digest, one in situation.reservations.items()}
        promised |= {task.digest: task.reserve for task in fetching}
        assert used + max(seen.unfinished, sum(promised.values())) <= LIMIT
    for task in of(found, Install):
        options, progress = wanted[task.name], situation.progress[task.name]
        if task.digest != progress.adopted:
            assert task.digest not in progress.turned_away
            assert progress.adopted is None or not (options.hold or progress.held)
        if task.fetches:
            assert not options.windows


FIRST, SECOND = DIGESTS[0], DIGESTS[1]
READY = Progress(
    name=NAMES[0],
    reference=NAMES[0],
    adopted=FIRST,
    versions=(version(FIRST),),
    resolved=STEADY,
    scrubbed=STEADY,
)
HERE = Installed(digest=FIRST, names=(NAMES[0],), parts=(Part(key="a", bytes=10),), pinned=True)


def situation_of(progress, *installed, options=None, **more):
    return Situation(
        **{
            "config": configuration(options or model(NAMES[0]), limit=LIMIT),
            "progress": {progress.name: progress},
            "observation": Observation(installed=installed, free=1000, trouble=None),
            "now": 12 * 3600.0,
            "steady": STEADY,
            **more,
        }
    )


def only(found):
    (verdict,) = found.verdicts.values()
    return verdict


def test_what_is_as_it_should_be_is_left_alone():
    found = plan(situation_of(READY, HERE))
    assert found.actions == ()
    assert only(found).stage == Stage.READY


@pytest.mark.parametrize(
    ("progress", "installed"),
    [
        (READY, ()),
        (replace(READY, damaged=FIRST), (HERE,)),
        (replace(READY, versions=()), (HERE,)),
        (READY, (replace(HERE, names=()),)),
        (READY, (replace(HERE, names=("registry.example/other:v1",)),)),
    ],
    ids=["gone", "damaged", "unknown", "no-name", "other-name"],
)
def test_what_is_not_as_it_should_be_is_brought_again(progress, installed):
    known = {(NAMES[0], FIRST): resolution(FIRST, 10)}
    (install,) = of(plan(situation_of(progress, *installed, resolutions=known)), Install)
    assert install.digest == FIRST
    assert install.fetches is (not installed or progress.damaged is not None)


def test_a_version_that_was_not_looked_up_since_the_start_is_first():
    found = plan(situation_of(READY))
    assert found.actions == (
        Resolve(name=NAMES[0], reference=parse_reference(NAMES[0]).with_digest(FIRST)),
    )


@pytest.mark.parametrize(
    ("options", "progress", "due"),
    [
        (model(NAMES[0], resolve=300.0), replace(READY, resolved=STEADY - 299), False),
        (model(NAMES[0], resolve=300.0), replace(READY, resolved=STEADY - 300), True),
        (model(NAMES[0], resolve=None), replace(READY, resolved=0.0), False),
        (model(NAMES[0], resolve=None), replace(READY, resolved=None), True),
        (model(NAMES[0], digest=FIRST), replace(READY, resolved=0.0), False),
        (model(NAMES[0], digest=SECOND), replace(READY, resolved=0.0), True),
    ],
    ids=["early", "due", "never", "asked", "fixed", "another-fixed"],
)
def test_when_a_reference_is_looked_up(options, progress, due):
    assert bool(of(plan(situation_of(progress, HERE, options=options)), Resolve)) is due


@pytest.mark.parametrize(
    ("failure", "free", "is_tried"),
    [
        (Failure(kind="network", reason="x", attempts=1, next_steady=STEADY + 1), 1000, False),
        (Failure(kind="network", reason="x", attempts=1, next_steady=STEADY), 1000, True),
        (
            Failure(kind="space", reason="x", attempts=1, next_steady=0, free_bytes=900),
            1000,
            True,
        ),
        (
            Failure(kind="space", reason="x", attempts=1, next_steady=STEADY - 9, free_bytes=900),
            1000,
            False,
        ),
        (
            Failure(kind="space", reason="x", attempts=1, next_steady=STEADY - 9, free_bytes=900),
            900 + 2**24,
            True,
        ),
    ],
    ids=["early", "due", "space-long-ago", "space", "more-space"],
)
def test_when_a_version_is_tried_again(failure, free, is_tried):
    found = plan(
        situation_of(
            replace(READY, failure=replace(failure, digest=FIRST)),
            observation=Observation(free=free, trouble=None),
            resolutions={(NAMES[0], FIRST): resolution(FIRST, 10)},
        )
    )
    assert bool(of(found, Install)) is is_tried


def test_pins_follow_the_wish():
    assert plan(situation_of(READY, replace(HERE, pinned=False))).actions == (
        Pin(digest=FIRST, pinned=True),
    )
    nobody = situation_of(READY, HERE, config=configuration(limit=LIMIT))
    assert plan(nobody).actions == (Pin(digest=FIRST, pinned=False),)
    again = replace(nobody, done_lately={Pin(digest=FIRST, pinned=False): STEADY - 1})
    assert plan(again).actions == ()


def test_a_foreign_model_is_nobodys_business():
    foreign = replace(HERE, digest=Digest.of(b"foreign"), names=("registry.example/f:v1",))
    assert plan(situation_of(READY, HERE, foreign)).actions == ()
