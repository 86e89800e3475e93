"""The writing half of the protocol: uploads whole and in chunks, mounts, manifests.

Owns these endpoints of distribution-spec 1.1 ("Push"), and the strictness of a registry that
takes a client at its word. Leaves out faults, which act on the request before and the answer
after.
"""

import re
from urllib.parse import quote

from tests.support.faultregistry.contents import Memory
from tests.support.faultregistry.manifests import check_manifest
from tests.support.faultregistry.pulls import Features, manifest_reference, repo_of
from tests.support.faultregistry.routes import is_digest, is_name
from tests.support.faultregistry.store import Store, StoredManifest, Upload, digest_of
from tests.support.faultregistry.wire import Hangup, Headers, Refusal, Request, Response, violation

_CONTENT_RANGE = re.compile(r"([0-9]+)-([0-9]+)")
_STATE = "_state"


class Pushes:
    """Answers POST, PATCH, PUT, and GET and DELETE of an upload."""

    def __init__(self, store: Store, features: Features, url: str):
        """``url`` is what Locations start with; empty makes them relative."""
        self._store = store
        self._features = features
        self._url = url

    # Uploads

    def begin(self, request: Request) -> Response:
        """POST: open an upload, push a blob at once, or mount one (end-4, end-11)."""
        request.allow_query("digest", "mount", "from")
        repo = repo_of(request)
        digest, mount = request.argument("digest"), request.argument("mount")
        if mount is not None:
            return self._mount(request, repo, mount)
        if request.argument("from") is not None:
            raise violation("UNSUPPORTED", "from without mount")
        if digest is not None:
            return self._push_at_once(request, repo, digest)
        if not request.body.done:
            raise violation("BLOB_UPLOAD_INVALID", "a body without a digest")
        return self._opened(repo)

    def _mount(self, request: Request, repo: str, digest: str) -> Response:
        source = request.argument("from")
        _check_digest(digest)
        if source is not None and not is_name(source):
            raise violation("NAME_INVALID", f"not a repository: {source!r}")
        if not request.body.done:
            raise violation("BLOB_UPLOAD_INVALID", "a mount with a body")
        if self._features.mount and self._store.mount_blob(digest, source, repo):
            return self._created(repo, "blobs", digest)
        return self._opened(repo)

    def _push_at_once(self, request: Request, repo: str, digest: str) -> Response:
        _check_digest(digest)
        if not self._features.single_post:
            return self._opened(repo)
        self._insist_on_octets(request)
        upload = Upload(repo)
        self._receive(request, upload)
        return self._finish(upload, digest)

    def patch(self, request: Request) -> Response:
        """PATCH: add a chunk (end-5)."""
        upload = self._upload(request)
        request.allow_query(_STATE)
        self._insist_on_octets(request)
        owner = upload.claim()
        streamed = "content-range" not in request.headers and self._features.streamed_patch
        if not streamed:
            self._check_place(request, upload)
        self._check_state(request, upload)
        self._check_last_chunk(upload)
        upload.last_chunk = None if streamed else request.body.length
        self._receive(request, upload, owner)
        return Response(status=202, headers=self._progress(upload))

    def close(self, request: Request) -> Response:
        """PUT: end an upload, with or without a last chunk (end-6)."""
        upload = self._upload(request)
        request.allow_query(_STATE, "digest")
        digest = request.argument("digest")
        if digest is None:
            raise violation("DIGEST_INVALID", "no digest on the PUT that ends an upload")
        _check_digest(digest)
        owner = upload.claim()
        if not request.body.done:
            self._insist_on_octets(request)
            if "content-range" in request.headers or upload.size:
                self._check_place(request, upload)
            self._check_last_chunk(upload)
        self._check_state(request, upload)
        self._receive(request, upload, owner)
        return self._finish(upload, digest)

    def status(self, request: Request) -> Response:
        """GET: say how far an upload is (end-13)."""
        upload = self._upload(request)
        request.allow_query(_STATE)
        upload.claim()
        return Response(status=204, headers=self._progress(upload))

    def cancel(self, request: Request) -> Response:
        """DELETE: forget an upload."""
        upload = self._upload(request)
        request.allow_query(_STATE)
        upload.claim()
        self._store.end_upload(upload)
        return Response(status=204)

    def _upload(self, request: Request) -> Upload:
        upload = self._store.upload(request.route.reference or "", repo_of(request))
        if upload is None:
            raise Refusal(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        if not upload.knows(request.argument(_STATE)):
            raise violation("BLOB_UPLOAD_INVALID", "not a Location that this registry gave")
        return upload

    def _insist_on_octets(self, request: Request) -> None:
        content_type = request.headers.get("content-type")
        if content_type != "application/octet-stream":
            raise violation("BLOB_UPLOAD_INVALID", f"the Content-Type of a blob: {content_type!r}")
        if request.body.chunked and not self._features.streamed_patch:
            raise violation("SIZE_INVALID", "no Content-Length", 411)

    def _check_place(self, request: Request, upload: Upload) -> None:
        """Hold a chunk to its Content-Range, and that to the order of chunks."""
        text = request.headers.get("content-range", "")
        match = _CONTENT_RANGE.fullmatch(text)
        if match is None:
            raise violation("BLOB_UPLOAD_INVALID", f"not a chunk's Content-Range: {text!r}")
        start, end = int(match[1]), int(match[2])
        if end - start + 1 != request.body.length:
            message = f"Content-Range {text} with {request.body.length} bytes"
            raise violation("SIZE_INVALID", message)
        if start != upload.size:
            raise Refusal(
                416,
                "BLOB_UPLOAD_INVALID",
                f"a chunk from {start} on, where {upload.size} is next",
                violation=True,
                headers=self._progress(upload),
            )

    def _check_state(self, request: Request, upload: Upload) -> None:
        if request.argument(_STATE) != upload.state:
            raise violation("BLOB_UPLOAD_INVALID", "the Location of an earlier answer")

    def _check_last_chunk(self, upload: Upload) -> None:
        least = self._features.min_chunk
        if least is not None and upload.last_chunk is not None and upload.last_chunk < least:
            message = f"a chunk of {upload.last_chunk} bytes, under {least}, was not the last"
            raise violation("SIZE_INVALID", message)

    def _receive(self, request: Request, upload: Upload, owner: int | None = None) -> None:
        owner = upload.claim() if owner is None else owner
        before = upload.size
        keep = True
        try:
            for piece in request.body.pieces():
                upload.append(owner, piece)
        except Hangup as hangup:
            keep = hangup.keep
            raise
        finally:
            upload.settle(owner, None if keep else before)

    def _finish(self, upload: Upload, digest: str) -> Response:
        content = Memory(upload.data)
        self._store.end_upload(upload)
        actual = digest_of(content, digest.partition(":")[0])
        if actual != digest:
            raise violation("DIGEST_INVALID", f"the bytes have {actual}, not {digest}")
        self._store.add_blob(digest, content, upload.repo)
        return self._created(upload.repo, "blobs", digest)

    # Manifests

    def manifest(self, request: Request) -> Response:
        """PUT a manifest (end-7)."""
        request.allow_query()
        repo, reference = repo_of(request), manifest_reference(request)
        if request.body.chunked:
            raise violation("SIZE_INVALID", "no Content-Length", 411)
        content_type = request.headers.get("content-type", "")
        data = request.body.read(self._features.manifest_limit)
        value = check_manifest(self._store, repo, data, content_type)
        tag = None if is_digest(reference) else reference
        algorithm = "sha256" if tag else reference.partition(":")[0]
        digest = digest_of(Memory(data), algorithm)
        if tag is None and digest != reference:
            raise violation("DIGEST_INVALID", f"the manifest has {digest}, not {reference}")
        stored = StoredManifest(digest=digest, media_type=content_type, data=data)
        self._store.put_manifest(repo, tag, stored)
        created = self._created(repo, "manifests", digest)
        if "subject" not in value or not self._features.referrers:
            return created
        subject = [("OCI-Subject", value["subject"]["digest"])]
        return Response(status=201, headers=Headers([*created.headers.items(), *subject]))

    # Answers

    def _opened(self, repo: str) -> Response:
        headers = self._progress(self._store.open_upload(repo))
        if self._features.min_chunk is not None:
            least = [("OCI-Chunk-Min-Length", str(self._features.min_chunk))]
            headers = Headers([*headers.items(), *least])
        return Response(status=202, headers=headers)

    def _progress(self, upload: Upload) -> Headers:
        path = f"/v2/{upload.repo}/blobs/uploads/{upload.id}?{_STATE}={quote(upload.state)}"
        # "0-0" for nothing yet is what the CNCF distribution says; it is one byte's range as well.
        end = max(0, upload.size - 1)
        return Headers([("Location", self._url + path), ("Range", f"0-{end}")])

    def _created(self, repo: str, what: str, digest: str) -> Response:
        location = f"{self._url}/v2/{repo}/{what}/{digest}"
        headers = [("Location", location), ("Docker-Content-Digest", digest)]
        return Response(status=201, headers=Headers(headers))


def _check_digest(digest: str) -> None:
    if not is_digest(digest):
        raise violation("DIGEST_INVALID", f"not a digest: {digest!r}")
