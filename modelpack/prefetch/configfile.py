"""The daemon's configuration: YAML in, ``DaemonConfig`` out, with the path of whatever is wrong.

Owns the file's form, which ``schemas/daemon.schema.json`` describes for editors. Leaves out where
files are (``sources.py``) and one model's members (``modelsection.py``). Everything unknown is an
error: a misspelt bound must not read as no bound.

    config = read_config(Path("/etc/modelpack/daemon.yaml"), DiskSource(), os.environ)

The configuration is one file, or a directory whose files are read as one: each top-level name is in
one of them only, and the lists of models are joined. Relative paths are relative to the directory
where the file is.
"""

import os
import socket
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from urllib.parse import urlsplit

from modelpack.errors import NotFoundError, UsageError
from modelpack.prefetch import config, quantities
from modelpack.prefetch.labels import check_key, check_value, parse_labels_file
from modelpack.prefetch.modelsection import parse_models, parse_window
from modelpack.prefetch.section import Section
from modelpack.prefetch.sources import Source
from modelpack.prefetch.windows import Rates, parse_zone
from modelpack.prefetch.yamltext import load_yaml
from modelpack.reference import split_host_port
from modelpack.runtime.options import NAMESPACE, SNAPSHOTTER

NODE_VARIABLE = "MODELPACK_NODE_NAME"
"""Names the node where one configuration is for many: a DaemonSet sets it from ``spec.nodeName``."""
UNLIMITED = "unlimited"
NEVER = "never"
_MEMBERS = (
    *("store", "budget", "watermarks", "minFree", "listen", "allowRemote", "controlSocket"),
    *("node", "runtime", "policy", "concurrency", "connections", "limitRate", "rates"),
    *("timezone", "mirrors", "plainHttp", "proxy", "caFile", "authFile", "bounds", "scrub"),
    *("retry", "defaults", "models", "include"),
)
_CONTAINERD = ("kind", "address", "namespace", "snapshotter", "hostRoot", "pageCache")
_DIRECTORY = ("kind", "path", "pageCache")
KINDS = ("containerd", "directory")

MAX_LABELS = 256
MAX_MIRRORS = 8
MAX_REGISTRIES = 64
MAX_RATES = 32
MAX_CONCURRENCY = 32
MAX_CONNECTIONS = 64
MAX_MODELS_BOUND = 4096
MAX_UPDATES = 1440
# Linux's bound on a Unix socket's path, without its final zero.
MAX_SOCKET_PATH = 107
_DEFAULT_HIGH, _DEFAULT_LOW = 90.0, 80.0
_SHORTEST_SCRUB = 3600.0
_SHORTEST_RETRY = 1.0


def read_config(
    path: Path, source: Source, environ: Mapping[str, str] = os.environ
) -> config.DaemonConfig:
    """Read a configuration for this node.

    Raises:
        NotFoundError: the file, or one that it names, is not there.
        UsageError: it is not a configuration; one line with the file and the path inside it.
    """
    documents = [(str(file), load_yaml(raw, str(file))) for file, raw in source.files(path)]
    if not documents:
        raise UsageError(f"{path} holds no file that ends in .yaml or .yml")
    base = path.absolute()
    if len(documents) == 1 and documents[0][0] == str(path):
        base = base.parent
    return _Reader(documents, base, source, environ).read()


class _Reader:
    """Reads one configuration; the methods are in the order of the file."""

    def __init__(
        self,
        documents: list[tuple[str, object]],
        base: Path,
        source: Source,
        environ: Mapping[str, str],
    ) -> None:
        self._sections = [Section(value, what) for what, value in documents]
        self._base = base
        self._source = source
        self._environ = environ

    def read(self) -> config.DaemonConfig:
        top = self._join()
        models = [section for section in self._sections if "models" in section.names()]
        if top.has("include"):
            models += self._included(top)
        elif not models:
            top.refuse("models", "is missing")
        zone = top.parsed("timezone", lambda value: parse_zone(top.as_text(value, "timezone")))
        store = self._absolute(top, "store")
        bounds = _bounds(top.section("bounds"))
        read = config.DaemonConfig(
            store=store,
            budget=_budget(top),
            identity=self._identity(top.section("node")),
            runtime=_runtime(top),
            models=parse_models(models, top.section("defaults")),
            listen=_listen(top),
            control_socket=self._socket(top, store),
            policy=self._path(top, "policy"),
            concurrency=top.integer("concurrency", 2, least=1, most=MAX_CONCURRENCY),
            network=self._network(top),
            rates=_rates(top),
            zone=zone or UTC,
            bounds=bounds,
            scrub=_scrub(top.section("scrub")),
            retry=_retry(top.section("retry")),
        )
        _check_count(read, top)
        return read

    def _join(self) -> Section:
        """Return all files as one; the lists of models are left for later."""
        joined: dict[str, object] = {}
        where: dict[str, str] = {}
        for section in self._sections:
            section.only(*_MEMBERS)
            for name in section.names():
                if name in joined and name != "models":
                    section.refuse(name, f"is in {where[name]} already")
                joined[name] = section.raw(name)
                where[name] = section.what
        first = self._sections[0].what
        return Section(joined, first if len(self._sections) == 1 else str(Path(first).parent))

    def _included(self, top: Section) -> list[Section]:
        directory = self._path(top, "include")
        assert directory is not None
        try:
            files = self._source.files(directory)
        except NotFoundError as error:
            raise UsageError(f"{top.what}: include: {error}") from error
        sections = []
        for file, raw in files:
            value = load_yaml(raw, str(file))
            section = Section({} if value is None else value, str(file))
            section.only("models")
            if "models" in section.names():
                sections.append(section)
        return sections

    def _path(self, section: Section, name: str) -> Path | None:
        text = section.text(name)
        return None if text is None else self._base / text

    def _absolute(self, section: Section, name: str) -> Path:
        path = Path(section.as_text(section.required(name), name))
        if not path.is_absolute():
            section.refuse(name, "is not an absolute path")
        return path

    def _socket(self, top: Section, store: Path) -> Path:
        path = self._absolute(top, "controlSocket") if top.has("controlSocket") else None
        path = path or store / "control.sock"
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            top.refuse(
                "controlSocket",
                f"is longer than {MAX_SOCKET_PATH} bytes ({path}); name a shorter one",
            )
        return path

    def _identity(self, section: Section) -> config.Identity:
        section.only("name", "labels", "labelsFile")
        name = section.text("name") or self._environ.get(NODE_VARIABLE) or socket.gethostname()
        name = section.as_text(name, "name")
        labels = {"kubernetes.io/hostname": name} if _is_label(name) else {}
        file = self._path(section, "labelsFile")
        if file is not None:
            try:
                labels |= parse_labels_file(self._source.read(file), str(file))
            except NotFoundError as error:
                raise UsageError(
                    f"{section.what}: {section.place('labelsFile')}: {error}"
                ) from error
        given = section.section("labels")
        names = given.names()
        if len(names) > MAX_LABELS:
            section.refuse("labels", f"has more than {MAX_LABELS} entries")
        for key in names:
            given.parse(key, key, check_key)
            labels[key] = given.parse(given.raw(key), key, check_value)
        return config.Identity(name=name, labels=labels)

    def _network(self, top: Section) -> config.Network:
        mirrors = top.section("mirrors")
        names = mirrors.names()
        if len(names) > MAX_REGISTRIES:
            top.refuse("mirrors", f"has more than {MAX_REGISTRIES} entries")
        found = {}
        for registry in names:
            mirrors.parse(registry, registry, split_host_port)
            urls = mirrors.items(registry, MAX_MIRRORS)
            found[registry] = tuple(
                mirrors.parse(url, f"{registry}[{number}]", _check_url)
                for number, url in enumerate(urls)
            )
        plain = top.items("plainHttp", MAX_REGISTRIES)
        for number, registry in enumerate(plain):
            text = top.as_text(registry, f"plainHttp[{number}]")
            top.parse(text, f"plainHttp[{number}]", split_host_port)
        connections = top.integer("connections", 0, least=1, most=MAX_CONNECTIONS)
        return config.Network(
            connections=connections or None,
            mirrors=found,
            proxy=top.parsed("proxy", _check_url),
            ca_file=self._path(top, "caFile"),
            auth_file=self._path(top, "authFile"),
            plain_http=frozenset(plain),
        )


def _is_label(name: str) -> bool:
    try:
        check_value(name)
    except UsageError:
        return False
    return True


def _budget(top: Section) -> config.Budget:
    limit = top.parse(top.required("budget"), "budget", quantities.parse_size)
    if limit < 1:
        top.refuse("budget", "is nothing; no model would fit")
    marks = top.section("watermarks")
    marks.only("high", "low")
    high = marks.parsed("high", quantities.parse_percent)
    low = marks.parsed("low", quantities.parse_percent)
    high = _DEFAULT_HIGH if high is None else high
    low = min(_DEFAULT_LOW, high) if low is None else low
    if low > high:
        marks.refuse("low", f"is above high ({low:g}% and {high:g}%)")
    return config.Budget(
        limit=limit,
        high=int(limit * high / 100),
        low=int(limit * low / 100),
        min_free=top.parsed("minFree", quantities.parse_size) or 0,
    )


def _runtime(top: Section) -> config.RuntimeOptions:
    top.required("runtime")
    section = top.section("runtime")
    section.only(*_CONTAINERD, *_DIRECTORY)
    kind = section.required("kind")
    if kind not in KINDS:
        section.refuse("kind", f"is not one of {', '.join(KINDS)}")
    section.only(*(_DIRECTORY if kind == "directory" else _CONTAINERD))
    page_cache = section.flag("pageCache") if section.has("pageCache") else None
    if kind == "directory":
        path = Path(section.as_text(section.required("path"), "path"))
        if not path.is_absolute():
            section.refuse("path", "is not an absolute path")
        return config.RuntimeOptions(kind=kind, path=path, page_cache=page_cache)
    address, host_root = section.text("address"), Path(section.text("hostRoot") or "/")
    for name, path in (("address", Path(address or "/")), ("hostRoot", host_root)):
        if not path.is_absolute():
            section.refuse(name, "is not an absolute path")
    return config.RuntimeOptions(
        kind=kind,
        address=Path(address) if address else None,
        namespace=section.text("namespace") or NAMESPACE,
        snapshotter=section.text("snapshotter") or SNAPSHOTTER,
        host_root=host_root,
        page_cache=page_cache,
    )


def _listen(top: Section) -> config.Listen:
    value = top.raw("listen")
    allowed = top.flag("allowRemote")
    if value is None:
        return config.Listen()
    try:
        host, port = split_host_port(value if isinstance(value, str) else "")
    except UsageError:
        host, port = "", None
    if port is None or not 0 <= port < 2**16:
        top.refuse("listen", f"is not HOST:PORT, such as 127.0.0.1:{config.DEFAULT_PORT}")
    listen = config.Listen(host=host, port=port)
    if not listen.is_local and not allowed:
        top.refuse(
            "listen",
            f"{host} is reached from other machines, which then see the names of all models; "
            "add 'allowRemote: true' if that is meant",
        )
    return listen


def _rates(top: Section) -> Rates:
    timed = []
    for section in top.sections("rates", MAX_RATES):
        value = section.required("rate")
        rate = None
        if value != UNLIMITED:
            rate = section.parse(value, "rate", quantities.parse_rate)
        timed.append((parse_window(section, "rate"), rate))
    return Rates(default=top.parsed("limitRate", quantities.parse_rate), timed=tuple(timed))


def _bounds(section: Section) -> config.Bounds:
    default = config.Bounds()
    section.only("models", "modelSize", "updatesPerDay")
    size = section.parsed("modelSize", quantities.parse_size)
    return config.Bounds(
        models=section.integer("models", default.models, least=1, most=MAX_MODELS_BOUND),
        model_size=size,
        updates_per_day=section.integer(
            "updatesPerDay", default.updates_per_day, least=0, most=MAX_UPDATES
        ),
    )


def _scrub(section: Section) -> config.Scrub:
    default = config.Scrub()
    section.only("every", "rate")
    every = default.every
    if section.raw("every") == NEVER:
        every = None
    elif section.has("every"):
        every = section.parse(section.raw("every"), "every", quantities.parse_duration)
        if every < _SHORTEST_SCRUB:
            section.refuse("every", "is less than an hour, which would wear the disk")
    rate = section.parsed("rate", quantities.parse_rate) or default.rate
    return config.Scrub(every=every, rate=rate)


def _retry(section: Section) -> config.Retry:
    default = config.Retry()
    section.only("first", "longest")
    first = section.parsed("first", quantities.parse_duration)
    first = default.first if first is None else first
    longest = section.parsed("longest", quantities.parse_duration)
    longest = max(default.longest, first) if longest is None else longest
    if first < _SHORTEST_RETRY:
        section.refuse("first", "is less than a second")
    if longest < first:
        section.refuse("longest", "is shorter than first")
    return config.Retry(first=first, longest=longest)


def _check_url(value: object) -> str:
    """Return an HTTP URL of a host that holds nothing secret; raise UsageError if it is none."""
    text = value if isinstance(value, str) else ""
    try:
        parts = urlsplit(text)
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        raise UsageError("it is not a URL such as http://127.0.0.1:5001") from None
    if "@" in parts.netloc:
        # Not repeated here: it holds a password.
        raise UsageError("the URL holds a user or password, which does not belong in this file")
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_ok:
        raise UsageError("it is not a URL such as http://127.0.0.1:5001")
    if parts.query or parts.fragment or not text.isprintable() or " " in text:
        raise UsageError("the URL has more than a scheme, a host, a port and a path")
    return text


def _check_count(read: config.DaemonConfig, top: Section) -> None:
    """Refuse a set that is larger than the node may be asked to have."""
    wanted = [model for model in read.models if model.selector.matches(read.identity.labels)]
    if len(wanted) > read.bounds.models:
        top.refuse(
            "models", f"has {len(wanted)} for this node; bounds.models is {read.bounds.models}"
        )
