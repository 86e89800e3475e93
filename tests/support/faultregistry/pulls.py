"""The reading half of the protocol, and deletion: blobs, manifests, tags, referrers.

Owns these endpoints of distribution-spec 1.1. Leaves out faults, authentication and uploads
(``pushes.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tests.support.faultregistry.contents import Memory
from tests.support.faultregistry.manifests import OCI_INDEX
from tests.support.faultregistry.routes import is_digest, is_tag
from tests.support.faultregistry.serving import serve
from tests.support.faultregistry.store import Store
from tests.support.faultregistry.wire import Refusal, Request, Response, json_response, violation


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """What a registry offers, of what the specification leaves open."""

    referrers: bool = True
    """Off: 404 for the referrers API, and no OCI-Subject."""
    referrers_filter: bool = True
    page_size: int | None = None
    """The most tags or referrers in one answer; None gives all that are asked for."""
    delete: bool = True
    single_post: bool = True
    """Whether a blob can be pushed with one POST; else that POST opens an upload."""
    mount: bool = True
    streamed_patch: bool = False
    """Whether PATCH may come without Content-Range or length, as Docker's and Go's clients do.
    It is not in the specification."""
    absolute_locations: bool = False
    min_chunk: int | None = None
    """OCI-Chunk-Min-Length, enforced."""
    manifest_limit: int = 4 * 1024 * 1024
    """Bytes; the specification asks for at least 4 MB."""


def repo_of(request: Request) -> str:
    """Return the repository that an endpoint below a repository is about."""
    repo = request.route.repo
    assert repo is not None, f"{request.route.kind} is not below a repository"
    return repo


class Pulls:
    """Answers GET, HEAD and DELETE of what is stored."""

    def __init__(self, store: Store, features: Features):
        self._store = store
        self._features = features

    def blob(self, request: Request) -> Response:
        """GET, HEAD or DELETE a blob (end-2, end-10)."""
        request.allow_query()
        repo, digest = repo_of(request), blob_digest(request)
        if request.method == "DELETE":
            self._insist_on_delete()
            if not self._store.delete_blob(digest, repo):
                raise Refusal(404, "BLOB_UNKNOWN", f"no blob {digest} in {repo}")
            return Response(status=202)
        content = self._store.blob(digest, repo)
        if content is None:
            raise Refusal(404, "BLOB_UNKNOWN", f"no blob {digest} in {repo}")
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        return serve(request, content, headers)

    def manifest(self, request: Request) -> Response:
        """GET, HEAD or DELETE a manifest (end-3, end-9)."""
        request.allow_query()
        repo, reference = repo_of(request), manifest_reference(request)
        if request.method == "DELETE":
            self._insist_on_delete()
            if not self._store.delete_manifest(repo, reference):
                raise Refusal(404, "MANIFEST_UNKNOWN", f"no manifest {reference} in {repo}")
            return Response(status=202)
        accepted = request.headers.get("accept")
        if accepted is None:
            raise violation("UNSUPPORTED", "no Accept header on a request for a manifest")
        manifest = self._store.manifest(repo, reference)
        if manifest is None:
            raise Refusal(404, "MANIFEST_UNKNOWN", f"no manifest {reference} in {repo}")
        kinds = [one.partition(";")[0].strip() for one in accepted.split(",")]
        if manifest.media_type not in kinds and "*/*" not in kinds:
            raise Refusal(404, "MANIFEST_UNKNOWN", f"it is {manifest.media_type}, not accepted")
        headers = {"Content-Type": manifest.media_type, "Docker-Content-Digest": manifest.digest}
        return serve(request, Memory(manifest.data), headers, ranges=False)

    def tags(self, request: Request) -> Response:
        """GET the tags (end-8)."""
        request.allow_query("n", "last")
        repo = repo_of(request)
        tags = self._store.tags(repo)
        if tags is None:
            raise Refusal(404, "NAME_UNKNOWN", f"no repository {repo}")
        last = request.argument("last")
        if last is not None:
            tags = [tag for tag in tags if (tag.lower(), tag) > (last.lower(), last)]
        asked = request.argument("n")
        if asked is not None and not asked.isdecimal():
            raise violation("UNSUPPORTED", f"n is not a number: {asked!r}")
        limits = [self._features.page_size, None if asked is None else int(asked)]
        limit = min((one for one in limits if one is not None), default=len(tags))
        page = tags[:limit]
        headers = {}
        if page and len(tags) > limit:
            query = {"n": asked or str(limit), "last": page[-1]}
            headers["Link"] = f'</v2/{repo}/tags/list?{urlencode(query)}>; rel="next"'
        return json_response(200, {"name": repo, "tags": page}, headers)

    def referrers(self, request: Request) -> Response:
        """GET the referrers of a manifest (end-12)."""
        if not self._features.referrers:
            raise Refusal(404, "UNSUPPORTED", "no referrers API")
        request.allow_query("artifactType", "page")
        repo, subject = repo_of(request), request.route.digest
        if subject is None:
            raise violation("DIGEST_INVALID", f"not a digest: {request.route.reference!r}")
        listed = self._store.referrers(repo, subject)
        headers: dict[str, str] = {}
        wanted = request.argument("artifactType")
        if wanted is not None and self._features.referrers_filter:
            listed = [one for one in listed if one.get("artifactType") == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        page = self._page(request, listed, headers)
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page}
        return json_response(200, index, headers, OCI_INDEX)

    def _page(
        self, request: Request, listed: list[dict[str, Any]], headers: dict[str, str]
    ) -> list[dict[str, Any]]:
        size = self._features.page_size
        if size is None:
            return listed
        page = request.argument("page") or "0"
        if not page.isdecimal():
            raise violation("UNSUPPORTED", f"not a Link that this registry gave: {page!r}")
        start = int(page) * size
        if start + size < len(listed):
            query: Mapping[str, str | None] = {
                "artifactType": request.argument("artifactType"),
                "page": str(start // size + 1),
            }
            given = {name: value for name, value in query.items() if value is not None}
            headers["Link"] = f'<{request.path}?{urlencode(given)}>; rel="next"'
        return listed[start : start + size]

    def _insist_on_delete(self) -> None:
        if not self._features.delete:
            raise Refusal(405, "UNSUPPORTED", "deletion is off")


def blob_digest(request: Request) -> str:
    """Return the digest in a blob's path.

    Raises:
        Refusal: it is none.
    """
    if request.route.digest is None:
        raise violation("DIGEST_INVALID", f"not a digest: {request.route.reference!r}")
    return request.route.digest


def manifest_reference(request: Request) -> str:
    """Return the tag or digest in a manifest's path.

    Raises:
        Refusal: it is neither.
    """
    reference = request.route.digest or request.route.reference or ""
    if not is_digest(reference) and not is_tag(reference):
        raise violation("MANIFEST_INVALID", f"neither a tag nor a digest: {reference!r}", 404)
    return reference
