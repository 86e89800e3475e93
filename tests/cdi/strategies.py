"""Hypothesis strategies for valid specs, and for specs with one thing changed at random."""

from dataclasses import replace

from hypothesis import strategies as st

from cdi.spec import (
    INT64_MAX,
    INT64_MIN,
    UINT32_MAX,
    ContainerEdits,
    Device,
    DeviceNode,
    Hook,
    IntelRdt,
    Mount,
    NetDevice,
    Spec,
)
from cdi.validate import HOOK_NAMES, NODE_TYPES
from cdi.version import minimum_version

# Texts that YAML readers like to take for something else, besides arbitrary ones.
TRICKY = st.sampled_from(
    [
        *("0", "1e3", "0o17", "0x1F", "1_000", "1:30", ".5", "-", "~", "null", "no", "Yes", "ON"),
        *("2026-01-01", "=", "<<", "a: b", "a:", "- x", "#x", "&a", "*a", "!t", "%y", "@x", "`x"),
        *(" x", "x ", "a\nb", "\t", "'", '"', "\\", "{}", "[a]", "\x00", "\x7f", "\x85", "\u2028"),
        *("\ufeff", "é", "😀", "true", ".inf", ".NaN", "|", ">", "? a", "...", "---", "x" * 200),
    ]
)
# Half a surrogate pair is refused, so it is no part of a valid spec.
TEXT = TRICKY | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FILLED = TEXT.filter(bool)
NAMES = st.from_regex(r"[A-Za-z]([A-Za-z0-9._-]{0,6}[A-Za-z0-9])?", fullmatch=True)
DEVICES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._:-]{0,6}[A-Za-z0-9])?", fullmatch=True)
ENV = st.builds(lambda name, value: f"{name}={value}", FILLED.filter(lambda t: t[0] != "="), TEXT)
PATHS = st.sampled_from(["/dev/a", "/dev/b", "/a/b/c", "/", "relative"]) | FILLED
INT64 = st.none() | st.integers(INT64_MIN, INT64_MAX)
UINT32 = st.integers(0, UINT32_MAX)


def several(inner, unique_by=None):
    return st.lists(inner, max_size=3, unique_by=unique_by).map(tuple)


NODES = st.builds(
    DeviceNode,
    path=PATHS,
    host_path=st.just("") | PATHS,
    type=st.sampled_from(NODE_TYPES),
    major=INT64,
    minor=INT64,
    file_mode=st.none() | UINT32,
    permissions=st.sampled_from(["", "r", "rw", "rwm", "none", "mm"]),
    uid=st.none() | UINT32,
    gid=st.none() | UINT32,
)
HOOKS = st.builds(
    Hook,
    hook_name=st.sampled_from(HOOK_NAMES),
    path=PATHS,
    args=several(TEXT),
    env=several(ENV),
    timeout=INT64,
)
MOUNTS = st.builds(
    Mount, host_path=PATHS, container_path=PATHS, options=several(TEXT), type=st.just("") | TEXT
)
NET_DEVICES = several(
    st.builds(NetDevice, host_interface_name=FILLED, name=FILLED),
    unique_by=(lambda net: net.host_interface_name, lambda net: net.name),
)
RDT = st.builds(
    IntelRdt,
    clos_id=st.sampled_from(["", "/", "gpu", "..."]),
    l3_cache_schema=TEXT,
    mem_bw_schema=TEXT,
    schemata=st.none() | several(TEXT),
    enable_monitoring=st.booleans(),
)
EDITS = st.builds(
    ContainerEdits,
    env=several(ENV),
    device_nodes=several(NODES),
    net_devices=NET_DEVICES,
    hooks=several(HOOKS),
    mounts=several(MOUNTS),
    intel_rdt=st.none() | RDT,
    additional_gids=several(UINT32),
)
ANNOTATIONS = st.dictionaries(TEXT, TEXT, max_size=2)


@st.composite
def specs(draw):
    devices = draw(
        st.lists(
            st.builds(
                Device, name=DEVICES, annotations=ANNOTATIONS, container_edits=EDITS.filter(bool)
            ),
            min_size=1,
            max_size=3,
            unique_by=lambda device: device.name,
        )
    )
    spec = Spec(
        cdi_version="",
        kind=f"{draw(NAMES)}/{draw(NAMES)}",
        annotations=draw(ANNOTATIONS),
        devices=tuple(devices),
        container_edits=draw(EDITS),
    )
    prefix = draw(st.sampled_from(["", "v"]))
    return replace(spec, cdi_version=prefix + minimum_version(spec).version)


LEAVES = (
    st.sampled_from([None, True, 0, -1, 2**63, 1.5, "", "x", "a/b", "0.3.0", "none", "=", [], {}])
    | TEXT
    | st.integers()
)


@st.composite
def damaged_specs(draw):
    """Draw a spec's JSON form with one value anywhere in it replaced, removed or added."""
    value = draw(specs()).to_json()
    here = value
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        if isinstance(here[key], (dict, list)) and draw(st.integers(0, 3)):
            here = here[key]
            continue
        action = draw(st.sampled_from(["replace", "remove", "none"]))
        if action == "replace":
            here[key] = draw(LEAVES)
        elif action == "remove":
            del here[key]
        break
    if draw(st.integers(0, 4)) == 0:
        if isinstance(here, dict):
            here[draw(st.sampled_from(["path", "env", "type", "name", "x"]))] = draw(LEAVES)
        else:
            here.append(draw(LEAVES))
    return value
