"""Anything that can happen to a node, in any order, with the daemon's promises checked at every step.

``Sim.check`` holds promises 1 and 3 after each task: nothing unverified is visible, the budget is
never exceeded, nothing mounted is removed. At the end everything is healed, and the node must come
to what its configuration says without any help (promises 2 and 4).
"""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpack.errors import ModelpackError, NetworkError, SpaceError
from tests.support.fleet import Clock, Sim, configuration, model
from tests.support.memorynode import CrashError, MemoryNode, Registry

NAMES = [f"registry.example/m{number}:v1" for number in range(4)]
# Every set of models that may be wanted fits, with one older version of each.
LIMIT, PARTS = 400, [10, 20, 30]

names = st.sampled_from(NAMES)
operations = st.one_of(
    st.tuples(st.just("push"), names, st.integers(0, 3), st.booleans()),
    st.tuples(st.just("registry"), st.booleans()),
    st.tuples(st.just("runtime"), st.booleans()),
    st.tuples(st.just("mount"), names),
    st.tuples(st.just("unmount")),
    st.tuples(st.just("want"), st.sets(names), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([1, 20, 400, 4000, 90000])),
    st.tuples(st.just("jump"), st.integers(-(10**7), 10**7)),
    st.tuples(st.just("kill")),
    st.tuples(st.just("crash"), st.integers(1, 25)),
    st.tuples(st.just("crash-saving"), st.integers(1, 8)),
    st.tuples(st.just("ask"), st.sampled_from(["hold", "release", "refresh", "scrub"]), names),
    st.tuples(st.just("rollback"), names),
    st.tuples(st.just("damage"), names),
    st.tuples(st.just("collect")),
    st.tuples(st.just("lose"), names),
    st.tuples(st.just("fault"), st.sampled_from(["install", "remove", "pin", "abandon", "scrub"])),
    st.tuples(st.just("full-state"), st.booleans()),
)


def apply(sim, operation):
    registry, node = sim.node.registry, sim.node
    match operation:
        case ("push", name, number, signed):
            kind = "good" if signed else "bad"
            parts = {f"base-{name}": 30, f"{kind}-{name}-{number}": PARTS[number % 3]}
            registry.push(name, parts, signed=signed)
        case ("registry", is_down):
            registry.is_down = is_down
        case ("runtime", is_down):
            node.is_down = is_down
        case ("mount", name):
            node.in_use |= {sim.visible(name)} - {None}
        case ("unmount",):
            node.in_use.clear()
        case ("want", chosen, waves):
            options = {"waves": [(30, 600), (60, 600)]} if waves else {}
            sim.configure(models=tuple(model(name, **options) for name in sorted(chosen)))
        case ("wait", seconds):
            sim.run(seconds, every=max(seconds / 10, 1))
        case ("jump", seconds):
            sim.clock.wall += seconds
        case ("kill",):
            sim.kill()
        case ("crash", step):
            node.crash_at = step
        case ("crash-saving", step):
            sim.keeper.crash_at = step
        case ("ask", what, name):
            sim.command(what, name)
        case ("rollback", name):
            sim.rollback(name)
        case ("damage", name):
            digest = sim.visible(name)
            if digest is not None and digest not in node.in_use:
                node.damaged[digest] = "weights"
        case ("collect",):
            for digest in [one for one, kept in node.here.items() if not kept.pinned]:
                if digest not in node.in_use:
                    del node.here[digest]
        case ("lose", name):
            digest = sim.visible(name)
            if digest not in node.in_use:
                node.here.pop(digest, None)
        case ("fault", method):
            node.faults[method] = NetworkError("reset") if method != "install" else SpaceError("no")
        case ("full-state", is_full):
            sim.keeper.is_full = is_full


def do(sim, action):
    """Do something during which the daemon may be killed."""
    try:
        action()
        sim.settle()
    except CrashError:
        sim.check()
        sim.kill()
    except ModelpackError:
        sim.check()


def heal(sim):
    registry, node = sim.node.registry, sim.node
    registry.is_down = node.is_down = sim.keeper.is_full = False
    node.crash_at = sim.keeper.crash_at = None
    node.faults.clear()
    node.in_use.clear()
    registry.unsigned.clear()
    node.disk += 10**9
    sim.run(3 * 3600, every=120)


@given(st.lists(operations, max_size=25), st.integers(0, 3))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_happens_the_promises_hold_and_the_node_recovers(steps, seed):
    registry = Registry()
    for number, name in enumerate(NAMES):
        registry.push(name, {f"base-{name}": 30, f"good-{name}-{number}": PARTS[number % 3]})
    sim = Sim(
        configuration(*map(model, NAMES[:2]), limit=LIMIT), MemoryNode(registry), Clock(), seed=seed
    )
    for operation in steps:
        do(sim, lambda operation=operation: apply(sim, operation))
    heal(sim)
    for wanted in sim.config.models:
        progress = sim.core.memory.progress[wanted.name]
        if progress.held:
            continue
        named = registry.tags[wanted.name]
        if named not in progress.turned_away:
            assert sim.visible(wanted.name) == named, sim.statuses()
    for status in sim.statuses():
        assert status.digest is not None or status.held
    assert sim.core.memory.reservations.keys() >= sim.node.begun.keys()
    wanted = {one.name for one in sim.config.models}
    for name, progress in sim.core.memory.progress.items():
        if name in wanted and progress.adopted in sim.node.here:
            assert sim.node.here[progress.adopted].pinned
