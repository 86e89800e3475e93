"""Good and bad CDI specs as a table of changes to a small one.

A case is a value; a bad one lists the paths of exactly the faults it must give. ``CODE_ONLY`` marks
what a JSON Schema cannot say. ``STRICTER`` marks what the reference implementation lets pass and
this project refuses on purpose.
"""

import copy
import re
from dataclasses import dataclass

SMALL = {
    "cdiVersion": "1.1.0",
    "kind": "vendor.com/gpu",
    "devices": [{"name": "gpu0", "containerEdits": {"deviceNodes": [{"path": "/dev/gpu0"}]}}],
}
FULL_EDITS = {
    "env": ["A=1", "B="],
    "deviceNodes": [
        {
            "path": "/dev/gpu0",
            "hostPath": "/dev/host0",
            "type": "c",
            "major": 195,
            "minor": 0,
            "fileMode": 438,
            "permissions": "rw",
            "uid": 0,
            "gid": 44,
        }
    ],
    "netDevices": [{"hostInterfaceName": "eth1", "name": "net0"}],
    "hooks": [
        {
            "hookName": "createContainer",
            "path": "/usr/bin/hook",
            "args": ["hook", "-v"],
            "env": ["X=y"],
            "timeout": 5,
        }
    ],
    "mounts": [
        {
            "hostPath": "/usr/lib/a.so",
            "containerPath": "/usr/lib/a.so",
            "options": ["ro", "bind"],
            "type": "none",
        }
    ],
    "intelRdt": {
        "closID": "gpu",
        "l3CacheSchema": "L3:0=f",
        "memBwSchema": "MB:0=50",
        "schemata": ["L2:0=f"],
        "enableMonitoring": True,
    },
    "additionalGids": [0, 44, 4294967295],
}
FULL = {
    "cdiVersion": "1.1.0",
    "kind": "vendor.com/gpu",
    "annotations": {"about": "everything"},
    "devices": [{"name": "gpu0", "annotations": {"k": "v"}, "containerEdits": FULL_EDITS}],
    "containerEdits": copy.deepcopy(FULL_EDITS),
}

DELETE = object()
CODE_ONLY = "code-only"
STRICTER = "stricter"


@dataclass(frozen=True, kw_only=True)
class Case:
    id: str
    value: object
    faults: tuple[str, ...] = ()
    marks: frozenset[str] = frozenset()


def changed(base, changes):
    """Return a copy of a document with values set, or deleted, at paths."""
    value = copy.deepcopy(base)
    for path, new in changes.items():
        steps = [
            int(i) if i else name for name, i in re.findall(r"([A-Za-z0-9_]+)|\[(\d+)\]", path)
        ]
        *way, last = steps
        here = value
        for step in way:
            here = here[step]
        if new is DELETE:
            del here[last]
        elif isinstance(here, list) and last == len(here):
            here.append(new)
        else:
            here[last] = new
    return value


def edits(value):
    """Return the change that gives the small spec these spec-level edits."""
    return {"containerEdits": value}


def node(**fields):
    return edits({"deviceNodes": [{"path": "/dev/x", **fields}]})


def hook(**fields):
    return edits({"hooks": [{"hookName": "poststop", "path": "/x", **fields}]})


def mount(**fields):
    return edits({"mounts": [{"hostPath": "/a", "containerPath": "/b", **fields}]})


def rdt(**fields):
    return edits({"intelRdt": fields})


def _good(name, changes, base=SMALL):
    return Case(id=name, value=changed(base, changes))


def _bad(name, changes, *faults, base=SMALL, marks=()):
    value = changed(base, changes) if isinstance(changes, dict) else changes
    return Case(id=name, value=value, faults=faults, marks=frozenset(marks))


_NO_FEATURE = {"devices[0].containerEdits": {"env": ["A=1"]}}
_DEVICE = {"name": "gpu1", "containerEdits": {"env": ["A=1"]}}

GOOD = (
    _good("small", {}),
    _good("full", {}, FULL),
    *(
        _good(f"version-{version}", {"cdiVersion": version})
        for version in (
            *("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"),
            *("v0.3.0", "v0.8.0", "v1.1.0"),
        )
    ),
    *(
        _good(f"kind-{name}", {"kind": kind})
        for name, kind in {
            "one-letter": "a/b",
            "two-letters": "ab/cd",
            "upper-case": "Vendor/GPU",
            "digits": "v1.io/gpu2",
            "punctuation": "a-b_c.d/e-f_g",
            "dotted-class": "a.com/g.pu",
            "doubled": "a..b/c--d",
            "long": "a" * 300 + "/" + "b" * 300,
        }.items()
    ),
    *(
        _good(f"device-{name}", {"devices[0].name": device})
        for name, device in {
            "digit": "0",
            "mig": "0:1",
            "uuid": "GPU-6d1c1a3e-0000-0000-0000-000000000000",
            "colons": "a::b",
            "looks-like-float": "1e3",
            "looks-like-bool": "no",
            "looks-like-octal": "0777",
            "dots": "a.b.c",
            "long": "x" * 500,
        }.items()
    ),
    _good("two-devices", {"devices[1]": _DEVICE}),
    _good("annotations", {"annotations": {"a/b": "", "": "x", "any text: #": "é\n"}}),
    _good("empty-annotations-0.3.0", {"cdiVersion": "0.3.0", "annotations": {}}),
    _good("device-annotations", {"devices[0].annotations": {"k": "v"}}),
    _good("empty-spec-edits", edits({})),
    _good("empty-lists", edits({"env": [], "deviceNodes": [], "hooks": [], "mounts": []})),
    _good(
        "empty-new-lists-0.3.0",
        {"cdiVersion": "0.3.0", **edits({"netDevices": [], "additionalGids": []})},
    ),
    *(
        _good(f"env-{name}", edits({"env": [env]}))
        for name, env in {
            "empty-value": "A=",
            "two-equals": "A==",
            "spaces": "A B= c ",
            "newline": "A=1\n2",
            "newline-in-name": "A\nB=1",
            "unicode": "É=é😀",
            "repeated": "A=1",
        }.items()
    ),
    *(_good(f"node-type-{kind or 'empty'}", node(type=kind)) for kind in ("", "b", "c", "u", "p")),
    *(
        _good(f"node-permissions-{text or 'empty'}", node(permissions=text))
        for text in ("", "r", "w", "m", "rwm", "mwr", "rrr", "none")
    ),
    _good("node-numbers-low", node(major=-(2**63), minor=-1, fileMode=0, uid=0, gid=0)),
    _good("node-numbers-high", node(major=2**63 - 1, minor=0, fileMode=2**32 - 1, uid=2**32 - 1)),
    _good("node-whole-float", node(major=195.0, minor=0.0)),
    _good("node-empty-host-path-0.3.0", {"cdiVersion": "0.3.0", **node(hostPath="")}),
    _good("node-relative-path", edits({"deviceNodes": [{"path": "dev"}]})),
    _good("node-repeated", edits({"deviceNodes": [{"path": "/dev/x"}, {"path": "/dev/x"}]})),
    *(
        _good(f"hook-{name}", hook(hookName=name))
        for name in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart")
    ),
    _good("hook-timeout-zero", hook(timeout=0)),
    _good("hook-timeout-negative", hook(timeout=-1)),
    _good("hook-empty-lists", hook(args=[], env=[])),
    _good("hook-empty-argument", hook(args=[""])),
    _good("mount-empty-type-0.3.0", {"cdiVersion": "0.3.0", **mount(type="")}),
    _good("mount-type-0.4.0", {"cdiVersion": "0.4.0", **mount(type="tmpfs")}),
    _good("mount-no-options", mount(options=[])),
    _good("host-path-0.5.0", {"cdiVersion": "0.5.0", **node(hostPath="/dev/y")}),
    _good("digit-0.5.0", {"cdiVersion": "0.5.0", "devices[0].name": "0"}),
    _good("dotted-class-0.6.0", {"cdiVersion": "0.6.0", "kind": "a.com/g.pu"}),
    _good("annotations-0.6.0", {"cdiVersion": "0.6.0", "annotations": {"a": "b"}}),
    _good("gids-0.7.0", {"cdiVersion": "0.7.0", **edits({"additionalGids": [0]})}),
    _good("rdt-0.7.0", {"cdiVersion": "0.7.0", **rdt()}),
    _good("rdt-no-monitoring-0.7.0", {"cdiVersion": "0.7.0", **rdt(enableMonitoring=False)}),
    *(
        _good(f"clos-id-{name}", rdt(closID=text))
        for name, text in {
            "empty": "",
            "root": "/",
            "three-dots": "...",
            "dotfile": ".a",
            "longest": "x" * 4095,
            "spaces": " a b ",
        }.items()
    ),
    _good("rdt-empty-schemata", rdt(schemata=[])),
    _good("device-only-rdt", {"devices[0].containerEdits": {"intelRdt": {}}}),
    _good("device-only-gid", {"devices[0].containerEdits": {"additionalGids": [0]}}),
    _good("device-only-hook", {"devices[0].containerEdits": hook()["containerEdits"]}),
    _good("device-only-mount", {"devices[0].containerEdits": mount()["containerEdits"]}),
    _good(
        "two-net-devices",
        edits(
            {
                "netDevices": [
                    {"hostInterfaceName": "a", "name": "b"},
                    {"hostInterfaceName": "b", "name": "a"},
                ]
            }
        ),
    ),
    _good(
        "same-net-device-in-two-places",
        {
            "devices[0].containerEdits.netDevices": [{"hostInterfaceName": "a", "name": "b"}],
            **edits({"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}),
        },
    ),
)

BAD = (
    *(
        Case(id=f"document-{name}", value=value, faults=("",))
        for name, value in {
            "null": None,
            "boolean": True,
            "number": 5,
            "string": "cdiVersion: 1.1.0",
            "array": [],
            "array-of-specs": [SMALL],
        }.items()
    ),
    Case(id="document-empty", value={}, faults=("cdiVersion", "devices", "kind")),
    *(_bad(f"missing-{name}", {name: DELETE}, name) for name in ("cdiVersion", "kind", "devices")),
    *(
        _bad(f"null-{name}", {path: None}, path, base=FULL, marks=marks)
        for name, path, marks in (
            ("version", "cdiVersion", ()),
            ("kind", "kind", ()),
            ("devices", "devices", ()),
            ("device", "devices[0]", ()),
            ("device-edits", "devices[0].containerEdits", ()),
            ("annotations", "annotations", (STRICTER,)),
            ("edits", "containerEdits", (STRICTER,)),
            ("env", "containerEdits.env", (STRICTER,)),
            ("variable", "containerEdits.env[0]", (STRICTER,)),
            ("node", "containerEdits.deviceNodes[0]", ()),
            ("major", "containerEdits.deviceNodes[0].major", (STRICTER,)),
            ("hook", "containerEdits.hooks[0]", ()),
            ("mount", "containerEdits.mounts[0]", ()),
            ("rdt", "containerEdits.intelRdt", (STRICTER,)),
        )
    ),
    *(
        _bad(f"type-{name}", {path: value}, path, base=FULL)
        for name, path, value in (
            ("version-object", "cdiVersion", {}),
            ("kind-array", "kind", ["a/b"]),
            ("devices-object", "devices", {"gpu0": {}}),
            ("device-string", "devices[0]", "gpu0"),
            ("device-array", "devices[0]", []),
            ("edits-array", "containerEdits", [{"env": ["A=1"]}]),
            ("edits-string", "devices[0].containerEdits", "env"),
            ("annotations-array", "annotations", ["a"]),
            ("annotation-object", "annotations.about", {}),
            ("env-object", "containerEdits.env", {"A": "1"}),
            ("env-string", "containerEdits.env", "A=1"),
            ("env-nested", "containerEdits.env[0]", ["A=1"]),
            ("nodes-string", "containerEdits.deviceNodes", "/dev/x"),
            ("node-string", "containerEdits.deviceNodes[0]", "/dev/x"),
            ("node-path-array", "containerEdits.deviceNodes[0].path", ["/dev/x"]),
            ("major-string", "containerEdits.deviceNodes[0].major", "195"),
            ("major-boolean", "containerEdits.deviceNodes[0].major", True),
            ("mode-string", "containerEdits.deviceNodes[0].fileMode", "0666"),
            ("uid-array", "containerEdits.deviceNodes[0].uid", [0]),
            ("net-string", "containerEdits.netDevices[0]", "eth0"),
            ("hooks-object", "containerEdits.hooks", {}),
            ("hook-args-string", "containerEdits.hooks[0].args", "-v"),
            ("hook-timeout-string", "containerEdits.hooks[0].timeout", "5s"),
            ("mount-options-string", "containerEdits.mounts[0].options", "ro"),
            ("rdt-array", "containerEdits.intelRdt", []),
            ("rdt-schemata-string", "containerEdits.intelRdt.schemata", "L3:0=f"),
            ("rdt-monitoring-number", "containerEdits.intelRdt.enableMonitoring", 1),
            ("rdt-monitoring-string", "containerEdits.intelRdt.enableMonitoring", "maybe"),
            ("gids-number", "containerEdits.additionalGids", 44),
            ("gid-string", "containerEdits.additionalGids[1]", "video"),
        )
    ),
    # The reference reads the text of a number or boolean as a string.
    *(
        _bad(f"type-{name}", {path: value}, path, base=FULL, marks=(STRICTER,))
        for name, path, value in (
            ("device-name-number", "devices[0].name", 0),
            ("device-name-boolean", "devices[0].name", True),
            ("annotation-number", "annotations.about", 1),
            ("mount-type-number", "containerEdits.mounts[0].type", 1),
            ("hook-argument-number", "containerEdits.hooks[0].args[1]", 5),
            # It cuts the fraction off, and lets the smallest number overflow.
            ("major-fraction", "containerEdits.deviceNodes[0].major", 195.5),
            ("minor-low", "containerEdits.deviceNodes[0].minor", -(2**63) - 1),
        )
    ),
    *(
        _bad(f"unknown-{name}", {path: value}, path, base=FULL)
        for name, path, value in (
            ("top", "version", "1.1.0"),
            ("top-case", "CdiVersion", "1.1.0"),
            ("device", "devices[0].id", "x"),
            ("edits", "containerEdits.devices", []),
            ("edits-in-prose", "containerEdits.additionalGIDs", [1]),
            ("node", "containerEdits.deviceNodes[0].mode", 438),
            ("net", "containerEdits.netDevices[0].mtu", 1500),
            ("hook", "containerEdits.hooks[0].name", "x"),
            ("mount", "containerEdits.mounts[0].readOnly", True),
            ("rdt-in-prose", "containerEdits.intelRdt.schema", []),
        )
    ),
    *(
        _bad(f"required-{name}", {path: DELETE}, path, base=FULL)
        for name, path in (
            ("device-name", "devices[0].name"),
            ("device-edits", "devices[0].containerEdits"),
            ("node-path", "containerEdits.deviceNodes[0].path"),
            ("net-host", "containerEdits.netDevices[0].hostInterfaceName"),
            ("net-name", "containerEdits.netDevices[0].name"),
            ("hook-name", "containerEdits.hooks[0].hookName"),
            ("hook-path", "containerEdits.hooks[0].path"),
            ("mount-host", "containerEdits.mounts[0].hostPath"),
            ("mount-container", "containerEdits.mounts[0].containerPath"),
        )
    ),
    *(
        _bad(f"empty-{name}", {path: ""}, path, base=FULL)
        for name, path in (
            ("version", "cdiVersion"),
            ("kind", "kind"),
            ("device-name", "devices[0].name"),
            ("node-path", "containerEdits.deviceNodes[0].path"),
            ("net-host", "containerEdits.netDevices[0].hostInterfaceName"),
            ("net-name", "containerEdits.netDevices[0].name"),
            ("hook-name", "containerEdits.hooks[0].hookName"),
            ("hook-path", "containerEdits.hooks[0].path"),
            ("mount-host", "containerEdits.mounts[0].hostPath"),
            ("mount-container", "containerEdits.mounts[0].containerPath"),
        )
    ),
    *(
        _bad(f"range-{name}", {path: value}, path, base=FULL)
        for name, path, value in (
            ("major-high", "containerEdits.deviceNodes[0].major", 2**63),
            ("mode-negative", "containerEdits.deviceNodes[0].fileMode", -1),
            ("mode-high", "containerEdits.deviceNodes[0].fileMode", 2**32),
            ("uid-negative", "containerEdits.deviceNodes[0].uid", -1),
            ("gid-high", "containerEdits.deviceNodes[0].gid", 2**32),
            ("extra-gid-negative", "containerEdits.additionalGids[0]", -1),
            ("extra-gid-high", "containerEdits.additionalGids[0]", 2**32),
            ("timeout-high", "containerEdits.hooks[0].timeout", 2**63),
            ("major-huge-float", "containerEdits.deviceNodes[0].major", 1e300),
        )
    ),
    *(
        _bad(f"version-{name}", {"cdiVersion": version}, "cdiVersion")
        for name, version in {
            "0.1.0": "0.1.0",
            "0.2.0": "0.2.0",
            "0.9.0": "0.9.0",
            "2.0.0": "2.0.0",
            "two-v": "vv1.1.0",
            "upper-v": "V1.1.0",
            "short": "1.1",
            "suffix": "1.1.0-rc1",
            "space": " 1.1.0",
            "newline": "1.1.0\n",
            "dots-are-dots": "1x1x0",
        }.items()
    ),
    *(
        _bad(f"needs-{name}", {"cdiVersion": version, **_NO_FEATURE, **changes}, "cdiVersion")
        for name, version, changes in (
            (
                "net-devices",
                "1.0.0",
                edits({"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}),
            ),
            ("schemata", "1.0.0", rdt(schemata=["L3:0=f"])),
            ("empty-schemata", "0.7.0", rdt(schemata=[])),
            ("monitoring", "0.8.0", rdt(enableMonitoring=True)),
            ("rdt", "0.6.0", rdt()),
            ("gids", "0.6.0", edits({"additionalGids": [0]})),
            ("device-gids", "v0.6.0", {"devices[0].containerEdits.additionalGids": [7]}),
            ("annotations", "0.5.0", {"annotations": {"a": "b"}}),
            ("device-annotations", "0.5.0", {"devices[0].annotations": {"a": "b"}}),
            ("dotted-class", "0.5.0", {"kind": "a.com/g.pu"}),
            ("digit", "0.4.0", {"devices[0].name": "0"}),
            ("host-path", "0.4.0", node(hostPath="/dev/y")),
            (
                "second-node",
                "0.3.0",
                edits({"deviceNodes": [{"path": "/a"}, {"path": "/b", "hostPath": "/c"}]}),
            ),
            ("mount-type", "0.3.0", mount(type="none")),
        )
    ),
    *(
        _bad(f"kind-{name}", {"kind": kind}, "kind")
        for name, kind in {
            "no-slash": "gpu",
            "no-vendor": "/gpu",
            "no-class": "vendor.com/",
            "two-slashes": "vendor.com/gpu/x",
            "digit-first": "1vendor/gpu",
            "class-digit-first": "vendor/1gpu",
            "dash-last": "vendor-/gpu",
            "class-dot-last": "vendor/gpu.",
            "space": "ven dor/gpu",
            "colon": "vendor/g:pu",
            "equals": "vendor/gpu=0",
            "unicode": "vendör/gpu",
            "unicode-digit": "vendor٣/gpu",
            "newline": "vendor/gpu\n",
        }.items()
    ),
    *(
        _bad(f"device-{name}", {"devices[0].name": device}, "devices[0].name")
        for name, device in {
            "slash": "a/b",
            "equals": "a=b",
            "comma": "a,b",
            "space": "a b",
            "colon-first": ":a",
            "colon-last": "a:",
            "dash-last": "a-",
            "dot-first": ".a",
            "underscore": "_",
            "unicode": "é",
            "newline": "a\n",
            "wildcard": "*",
        }.items()
    ),
    _bad("no-devices", {"devices": []}, "devices"),
    _bad("no-devices-but-edits", {"devices": [], **edits({"env": ["A=1"]})}, "devices"),
    _bad("empty-device-edits", {"devices[0].containerEdits": {}}, "devices[0].containerEdits"),
    _bad(
        "empty-lists-in-device",
        {"devices[0].containerEdits": {"env": [], "deviceNodes": [], "additionalGids": []}},
        "devices[0].containerEdits",
    ),
    _bad(
        "empty-second-device",
        {"devices[1]": {"name": "gpu1", "containerEdits": {}}, **edits({"env": ["A=1"]})},
        "devices[1].containerEdits",
    ),
    *(
        _bad(f"env-{name}", edits({"env": ["GOOD=1", env]}), "containerEdits.env[1]")
        for name, env in {"empty": "", "no-equals": "A", "no-name": "=1", "equals": "="}.items()
    ),
    _bad(
        "device-env", {"devices[0].containerEdits.env": ["A"]}, "devices[0].containerEdits.env[0]"
    ),
    _bad("hook-env", hook(env=["A"]), "containerEdits.hooks[0].env[0]"),
    *(
        _bad(f"node-type-{name}", node(type=kind), "containerEdits.deviceNodes[0].type")
        for name, kind in {
            "char": "char",
            "upper": "C",
            "two": "bc",
            "space": " ",
            "d": "d",
        }.items()
    ),
    *(
        _bad(
            f"node-permissions-{name}",
            node(permissions=text),
            "containerEdits.deviceNodes[0].permissions",
        )
        for name, text in {
            "x": "rwx",
            "upper": "RW",
            "None": "None",
            "noner": "noner",
            "newline": "r\n",
        }.items()
    ),
    *(
        _bad(f"hook-name-{name}", hook(hookName=name), "containerEdits.hooks[0].hookName")
        for name in ("preStart", "create-container", "poststop ", "init")
    ),
    *(
        _bad(f"clos-id-{name}", rdt(closID=text), "containerEdits.intelRdt.closID")
        for name, text in {
            "dot": ".",
            "dots": "..",
            "slash": "a/b",
            "slashes": "//",
            "newline": "a\n",
            "dot-newline": ".\n",
            "long": "x" * 4096,
        }.items()
    ),
    _bad(
        "many-faults",
        {"kind": "x", "devices[0].name": "*", "colour": 1, **edits({"env": ["A", 5, "B"]})},
        *("colour", "containerEdits.env[0]", "containerEdits.env[1]", "containerEdits.env[2]"),
        *("devices[0].name", "kind"),
    ),
    _bad(
        "version-and-others",
        {"cdiVersion": "0.3.0", "devices[0].name": "0-", **edits({"intelRdt": {"closID": "a/"}})},
        *("cdiVersion", "containerEdits.intelRdt.closID", "devices[0].name"),
    ),
    # What a JSON Schema cannot say.
    _bad(
        "duplicate-device",
        {"devices[1]": {**_DEVICE, "name": "gpu0"}},
        "devices[1].name",
        marks={CODE_ONLY},
    ),
    _bad(
        "duplicate-net-host",
        edits(
            {
                "netDevices": [
                    {"hostInterfaceName": "a", "name": "b"},
                    {"hostInterfaceName": "a", "name": "c"},
                ]
            }
        ),
        "containerEdits.netDevices[1].hostInterfaceName",
        marks={CODE_ONLY},
    ),
    _bad(
        "duplicate-net-name",
        edits(
            {
                "netDevices": [
                    {"hostInterfaceName": "a", "name": "b"},
                    {"hostInterfaceName": "c", "name": "b"},
                ]
            }
        ),
        "containerEdits.netDevices[1].name",
        marks={CODE_ONLY},
    ),
    _bad(
        "clos-id-bytes", rdt(closID="é" * 2048), "containerEdits.intelRdt.closID", marks={CODE_ONLY}
    ),
    _bad(
        "half-surrogate",
        edits({"env": ["A=\ud800"]}),
        "containerEdits.env[0]",
        marks={CODE_ONLY},
    ),
    _bad(
        "half-surrogate-key",
        {"annotations": {"\udfff": "x"}},
        "annotations",
        marks={CODE_ONLY},
    ),
)
