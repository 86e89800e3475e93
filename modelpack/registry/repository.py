"""One repository of a registry, as a place to fetch from and push to.

Owns the distribution-spec's pull, push, content discovery and management of manifests and blobs.
Leaves out how requests survive the network (``client.py``), the bytes of uploads
(``uploads.py``), the referrers fall-back (``tagschema.py``) and parallel pulls (``ranges.py``).

    with RegistryRepository(parse_reference("localhost:5000/team/model:v1")) as repository:
        manifest = repository.fetch_manifest("v1")
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from modelpack.content import Content
from modelpack.descriptor import INDEX_TYPES, MANIFEST_TYPES, MAX_MANIFEST_BYTES, Descriptor
from modelpack.digest import Digest
from modelpack.errors import FormatError, IntegrityError, UsageError
from modelpack.events import Observer
from modelpack.manifest import Index, Manifest, load_json, parse_manifest
from modelpack.reference import Reference, RegistryReference, check_tag
from modelpack.registry import addresses, tagschema
from modelpack.registry.auth import DELETE, PULL, PUSH
from modelpack.registry.blobstream import BlobStream
from modelpack.registry.client import MOVED, TO_STORAGE, RegistryClient, Response
from modelpack.registry.options import ConnectionOptions, Mirror
from modelpack.registry.ranges import BlobLocations, HttpRangeConnection
from modelpack.registry.uploads import Uploader
from modelpack.storage import ByteStream, Progress, RangeConnection

_MANIFEST_ACCEPT = ", ".join([*MANIFEST_TYPES, *INDEX_TYPES])
# A page of tags as long as distribution allows by default.
_TAGS_PER_PAGE = 1000
MAX_TAGS = 100_000
# A registry lets anyone who may push attach referrers; a flood must not become our memory.
MAX_REFERRERS = 10_000
MAX_PAGES = 1000
# Answers by which registries say that they have no referrers API.
_NO_REFERRERS_API = frozenset({400, 404, 405, 406, 415, 501})


class RegistryRepository:
    """A repository, implementing ``modelpack.storage.Repository``; thread-safe."""

    def __init__(
        self,
        reference: RegistryReference,
        options: ConnectionOptions | None = None,
        observer: Observer | None = None,
        *,
        mirror: Mirror | None = None,
    ) -> None:
        """Prepare, without connecting; with ``mirror``, all is asked of that.

        Raises:
            UsageError: the options' certificate file is unusable.
        """
        self._reference = reference
        self.client = RegistryClient(
            reference.registry, reference.repository, options, observer, mirror=mirror
        )
        self._uploader = Uploader(self.client)
        self._referrers_api: bool | None = None
        self._tag_schema_lock = threading.Lock()
        self._locations = BlobLocations()

    @property
    def reference(self) -> Reference:
        """The name it was opened by."""
        return self._reference

    def close(self) -> None:
        """Close the connections."""
        self._uploader.close()
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Pull (distribution-spec, "Pull")

    def resolve(self, name: str | Digest) -> Descriptor:
        """Return the descriptor of the manifest at a tag or digest.

        A HEAD request does when its answer is complete; otherwise the manifest is fetched. What a
        HEAD said is unproven until ``fetch_manifest`` is called with the digest.

        Raises:
            NotFoundError: there is none.
            IntegrityError: another digest than the one asked for.
        """
        response = self.client.request(
            "HEAD",
            f"manifests/{_name(name)}",
            what=self._what(name),
            headers={"Accept": _MANIFEST_ACCEPT},
            expect=(200, 400, 405, 406, 501),
            max_bytes=0,
        )
        media_type = _media_type(response)
        length = response.headers.get("Content-Length", "")
        served = response.headers.get("Docker-Content-Digest")
        complete = (
            response.status == 200
            and served is not None
            and media_type in (*MANIFEST_TYPES, *INDEX_TYPES)
            and length.isascii()
            and length.isdigit()
        )
        if not complete:
            manifest = self.fetch_manifest(name)
            return _describe(manifest, name)
        digest = Digest.parse(served)
        if isinstance(name, Digest) and digest.algorithm == name.algorithm and digest != name:
            raise IntegrityError(f"{self._what(name)}: the registry says its digest is {digest}")
        if int(length) > MAX_MANIFEST_BYTES:
            raise IntegrityError(f"{self._what(name)}: larger than {MAX_MANIFEST_BYTES} bytes")
        return Descriptor(
            media_type=media_type,
            digest=name if isinstance(name, Digest) else digest,
            size=int(length),
        )

    def fetch_manifest(self, name: str | Digest) -> Manifest | Index:
        """Return the verified manifest or index at a tag or digest.

        Raises:
            NotFoundError: there is none.
            IntegrityError: its bytes do not have the digest asked for, or the one the registry
                names, or are no manifest.
        """
        what = self._what(name)
        response = self.client.request(
            "GET", f"manifests/{_name(name)}", what=what, headers={"Accept": _MANIFEST_ACCEPT}
        )
        if isinstance(name, Digest):
            name.check(response.body, what)
        served = response.headers.get("Docker-Content-Digest")
        if served is not None:
            Digest.parse(served).check(response.body, f"{what}, by the registry's own digest")
        try:
            return parse_manifest(response.body, _manifest_type(response))
        except FormatError as error:
            raise FormatError(f"{what}: {error}") from error

    def fetch_blob(self, descriptor: Descriptor, *, max_bytes: int) -> bytes:
        """Return a small blob, verified.

        Raises:
            NotFoundError: there is none.
            IntegrityError: wrong bytes, wrong length, or more than ``max_bytes``.
        """
        what = self._what(descriptor.digest)
        if descriptor.size > max_bytes:
            raise IntegrityError(
                f"{what}: {descriptor.size} bytes where at most {max_bytes} are expected"
            )
        response = self.client.request(
            "GET", f"blobs/{descriptor.digest}", what=what, max_bytes=descriptor.size
        )
        if len(response.body) != descriptor.size:
            raise IntegrityError(f"{what}: {len(response.body)} bytes instead of {descriptor.size}")
        descriptor.digest.check(response.body, what)
        return response.body

    def open_blob(
        self, descriptor: Descriptor, start: int = 0, length: int | None = None
    ) -> AbstractContextManager[ByteStream]:
        """Open a blob, or a range of it, as an unverified stream of exactly that many bytes.

        A connection that breaks is resumed where it broke. Meant for small reads and for copying;
        ``ranges.py`` is the fast way.

        Raises:
            NotFoundError: there is none.
            IntegrityError, NetworkError: while reading.
        """
        return BlobStream(
            self.client, descriptor, start, length, what=self._what(descriptor.digest)
        )

    def range_connection(self) -> RangeConnection:
        """Return a new connection for fetching ranges of blobs, for one thread."""
        return HttpRangeConnection(self.client, self._locations)

    # Content discovery

    def tags(self) -> list[str]:
        """Return all tags, sorted.

        Raises:
            NotFoundError: there is no such repository.
            FormatError: the list is none, or is longer than the bounds.
        """
        what = f"tags of {self.client.name}"
        tags: set[str] = set()
        for response in self._pages("tags/list", {"n": str(_TAGS_PER_PAGE)}, what):
            value = load_json(response.body, what)
            page = value.get("tags") if isinstance(value, dict) else ""
            if page is not None and not isinstance(page, list):
                raise FormatError(f"{what}: the answer is not a list of tags")
            for tag in page or []:
                try:
                    tags.add(check_tag(tag) if isinstance(tag, str) else check_tag(""))
                except UsageError as error:
                    raise FormatError(f"{what}: {error}") from error
            if len(tags) > MAX_TAGS:
                raise FormatError(f"{what}: more than {MAX_TAGS}")
        return sorted(tags)

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> list[Descriptor]:
        """Return the descriptors of the manifests whose subject is ``digest``.

        From the referrers API, or without one from the tag schema (distribution-spec, "Listing
        Referrers", "Referrers Tag Schema"). Neither proves anything: each manifest's own
        ``subject`` does.

        Raises:
            FormatError: the answer is no index, or lists more than the bounds.
        """
        found = None if self._referrers_api is False else self._from_api(digest, artifact_type)
        if found is None:
            self._referrers_api = False
            found = list(tagschema.read(self.client, digest).manifests)
        if len(found) > MAX_REFERRERS:
            raise FormatError(f"{self._what(digest)} has more than {MAX_REFERRERS} referrers")
        return [
            descriptor
            for descriptor in found
            if artifact_type is None or descriptor.artifact_type == artifact_type
        ]

    # Push (distribution-spec, "Push")

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Tell whether the repository has the blob.

        Raises:
            IntegrityError: it has one of that digest but another size.
        """
        what = self._what(descriptor.digest)
        response = self.client.request(
            "HEAD",
            f"blobs/{descriptor.digest}",
            what=what,
            expect={200, 404, *TO_STORAGE},
            redirects=MOVED,
            actions=PULL,
            max_bytes=0,
        )
        length = response.headers.get("Content-Length")
        if response.status == 200 and length is not None and length != str(descriptor.size):
            raise IntegrityError(f"{what}: the registry has it with {length[:20]} bytes")
        return response.status != 404

    def push_blob(
        self, descriptor: Descriptor, content: Content, progress: Progress | None = None
    ) -> None:
        """Upload a blob; a normal return means that the registry took it under its digest.

        Goes on where an interrupted upload of the same blob stopped, where the registry can.

        Raises:
            IntegrityError: the content does not have the digest, or changed while it was read.
            SpaceError: the registry takes no more.
            NetworkError: the registry gave up.
        """
        self._uploader.upload(descriptor, content, progress)

    def mount_blob(self, descriptor: Descriptor, source: Reference) -> bool:
        """Take a blob from another repository of the same registry, if it is offered.

        False when it is another registry, or the registry wants the bytes instead; the upload it
        opened for them is used by the next ``push_blob`` of this blob.
        """
        if not isinstance(source, RegistryReference) or source.registry != self._reference.registry:
            return False
        return self._uploader.mount(descriptor, source.repository)

    def push_manifest(self, manifest: Manifest | Index, tag: str | None = None) -> None:
        """Store a manifest under its digest and, if given, point ``tag`` at it, atomically.

        A manifest with a ``subject`` is listed among its referrers, by the registry or in the tag
        schema's index.

        Raises:
            IntegrityError: the registry stored it under another digest.
        """
        name = check_tag(tag) if tag is not None else str(manifest.digest)
        what = f"push of {self._what(tag if tag is not None else manifest.digest)}"
        response = self.client.request(
            "PUT",
            f"manifests/{name}",
            what=what,
            expect=(200, 201, 202),
            actions=PUSH,
            headers={"Content-Type": manifest.media_type},
            content=manifest.raw,
        )
        served = response.headers.get("Docker-Content-Digest")
        if served is not None:
            Digest.parse(served).check(manifest.raw, f"{what}, by the registry's own digest")
        subject = manifest.subject if isinstance(manifest, Manifest) else None
        if subject is not None and "OCI-Subject" not in response.headers:
            assert isinstance(manifest, Manifest)
            descriptor = manifest.descriptor(manifest.annotations)
            with self._tag_schema_lock:
                tagschema.add(self.client, subject.digest, descriptor)

    # Content management

    def delete_manifest(self, name: str | Digest) -> None:
        """Delete a manifest by digest, or a tag where the registry allows that.

        Raises:
            NotFoundError: there is none.
            ModelpackError: the registry does not allow deleting.
        """
        self.client.request(
            "DELETE",
            f"manifests/{_name(name)}",
            what=f"deletion of {self._what(name)}",
            expect=(200, 202, 204),
            actions=DELETE,
        )

    def _from_api(self, digest: Digest, artifact_type: str | None) -> list[Descriptor] | None:
        what = f"referrers of {self._what(digest)}"
        query = {"artifactType": artifact_type} if artifact_type else {}
        found: list[Descriptor] = []
        pages = self._pages(f"referrers/{digest}", query, what, also_expect=_NO_REFERRERS_API)
        for number, response in enumerate(pages):
            if response.status != 200 or _media_type(response) not in INDEX_TYPES:
                if number:
                    raise FormatError(f"{what}: page {number + 1} is no index")
                return None
            index = parse_manifest(response.body, _media_type(response))
            assert isinstance(index, Index)
            found += index.manifests
            if len(found) > MAX_REFERRERS:
                break
        self._referrers_api = True
        return found

    def _pages(
        self,
        path: str,
        query: dict[str, str],
        what: str,
        also_expect: frozenset[int] = frozenset(),
    ) -> Iterator[Response]:
        """Yield the pages of a list, following ``Link`` within this repository's own list only."""
        url = first = self.client.url(path, query)
        seen = {url}
        for _ in range(MAX_PAGES):
            response = self.client.request("GET", url, what=what, expect={200, *also_expect})
            yield response
            link = addresses.next_link(response.headers.get("Link", ""))
            if link is None:
                return
            url = addresses.resolve_location(url, link)
            same_list = addresses.without_query(url) == addresses.without_query(first)
            if not same_list or url in seen:
                raise FormatError(f"{what}: the next page is not another page of the same list")
            seen.add(url)
        raise FormatError(f"{what}: more than {MAX_PAGES} pages")

    def _what(self, name: str | Digest) -> str:
        separator = "@" if isinstance(name, Digest) else ":"
        return f"{self.client.name}{separator}{name}"


def _name(name: str | Digest) -> str:
    return str(name) if isinstance(name, Digest) else check_tag(name)


def _media_type(response: Response) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _manifest_type(response: Response) -> str:
    """Return the transport's media type, or the document's own when the transport names none.

    Some registries and proxies serve manifests as ``application/json`` or ``text/plain``.
    """
    media_type = _media_type(response)
    if media_type in (*MANIFEST_TYPES, *INDEX_TYPES):
        return media_type
    value = load_json(response.body, "manifest")
    own = value.get("mediaType") if isinstance(value, dict) else None
    return own if isinstance(own, str) else media_type


def _describe(manifest: Manifest | Index, name: str | Digest) -> Descriptor:
    return Descriptor(
        media_type=manifest.media_type,
        digest=name if isinstance(name, Digest) else manifest.digest,
        size=len(manifest.raw),
    )
