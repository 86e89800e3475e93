"""Provenance: how a model came to be pushed, as a SLSA v1 predicate.

Owns the predicate and reading what CI systems say of themselves in the environment; pure. Leaves
out signing it. What is not known is left out: the predicate says what ran, not that it was right,
and is worth as much as whoever signs it.

    >>> built = predicate("registry.example/team/llama", facts={}, annotations={}, environ={},
    ...     finished="2026-01-01T00:00:00Z")
    >>> built["runDetails"]["builder"]["id"]
    'urn:modelpack:builder:local'

SLSA v1.0, "Provenance"; the build type is described in docs/trust.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelpack._version import __version__

BUILD_TYPE = "urn:modelpack:buildtype:push:v1"
_LOCAL_BUILDER = "urn:modelpack:builder:local"
_BASE_NAME = "org.opencontainers.image.base.name"
_BASE_DIGEST = "org.opencontainers.image.base.digest"
_DIGEST = re.compile(r"(?P<algorithm>sha256|sha512):(?P<hex>[0-9a-f]{64,128})\Z")
# "owner/name" as model hubs and their front matter write it.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}\Z", re.ASCII)
# A variable of the environment goes into a signed document; more than this is no URL or id.
_MAX_VALUE = 1024
# "user:token@" in a URL, which must not get into a public document.
_CREDENTIALS = re.compile(r"(?<=://)[^/?#@]*@")


@dataclass(frozen=True, kw_only=True, slots=True)
class CiRun:
    """What a CI system says of the run that this process is part of."""

    builder: str
    """Who built: a URI."""
    source: str | None = None
    """The URI of the repository that the run was made from."""
    source_ref: str | None = None
    commit: str | None = None
    workflow: str | None = None
    """The definition of what ran."""
    invocation: str | None = None
    """The URI of the run."""
    started: str | None = None
    internal: Mapping[str, str] = field(default_factory=dict)


class _Get:
    """Reads variables that are short and printable; anything else counts as not set.

    Credentials in a URL are left out.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def __call__(self, name: str) -> str | None:
        value = _CREDENTIALS.sub("", self._environ.get(name, ""))
        return value if value.isprintable() and 0 < len(value) <= _MAX_VALUE else None


def predicate(
    repository: str,
    *,
    facts: Mapping[str, Any],
    annotations: Mapping[str, str],
    environ: Mapping[str, str],
    finished: str,
) -> dict[str, Any]:
    """Return the predicate for a model pushed to ``repository``.

    ``facts`` is the artifact's ``model.json``, whose base models and datasets become dependencies;
    ``annotations`` are the manifest's; ``finished`` is an RFC 3339 time.
    """
    run = ci_run(environ)
    external = _known({"repository": repository, "source": run.source, "ref": run.source_ref,
                       "workflow": run.workflow})  # fmt: skip
    definition: dict[str, Any] = {"buildType": BUILD_TYPE, "externalParameters": external}
    if run.internal:
        definition["internalParameters"] = dict(run.internal)
    dependencies = [*_source(run), *_base(annotations), *_named(facts)]
    if dependencies:
        definition["resolvedDependencies"] = dependencies
    metadata = _known(
        {"invocationId": run.invocation, "startedOn": run.started, "finishedOn": finished}
    )
    return {
        "buildDefinition": definition,
        "runDetails": {
            "builder": {"id": run.builder, "version": {"modelpack": __version__}},
            "metadata": metadata,
        },
    }


def ci_run(environ: Mapping[str, str]) -> CiRun:
    """Tell from the environment where this process runs: GitHub, GitLab, Tekton, or nowhere known.

    Tekton sets no variables of its own; those that the task in ``examples/ci/tekton`` sets from the
    run's context are read.
    """
    get = _Get(environ)
    if get("GITHUB_ACTIONS") == "true":
        return _github(get)
    if get("GITLAB_CI") == "true":
        return _gitlab(get)
    if get("TEKTON_TASKRUN_NAME"):
        return _tekton(get)
    return CiRun(builder=_LOCAL_BUILDER)


def _github(get: _Get) -> CiRun:
    server, repository = get("GITHUB_SERVER_URL"), get("GITHUB_REPOSITORY")
    source = f"{server}/{repository}" if server and repository else None
    run, attempt = get("GITHUB_RUN_ID"), get("GITHUB_RUN_ATTEMPT") or "1"
    workflow = get("GITHUB_WORKFLOW_REF")
    hosted = get("RUNNER_ENVIRONMENT") or "unknown"
    return CiRun(
        builder=f"https://github.com/actions/runner/{hosted}",
        source=f"git+{source}" if source else None,
        source_ref=get("GITHUB_REF"),
        commit=get("GITHUB_SHA"),
        workflow=f"{server}/{workflow}" if server and workflow else None,
        invocation=f"{source}/actions/runs/{run}/attempts/{attempt}" if source and run else None,
        internal=_chosen(
            get, event="GITHUB_EVENT_NAME", repository_id="GITHUB_REPOSITORY_ID",
            owner_id="GITHUB_REPOSITORY_OWNER_ID", actor_id="GITHUB_ACTOR_ID",
        ),
    )  # fmt: skip


def _gitlab(get: _Get) -> CiRun:
    server = get("CI_SERVER_URL") or "https://gitlab.com"
    project = get("CI_PROJECT_URL")
    ref = get("CI_COMMIT_REF_NAME")
    kind = "tags" if get("CI_COMMIT_TAG") else "heads"
    return CiRun(
        builder=f"{server}/-/runners/{get('CI_RUNNER_ID') or 'unknown'}",
        source=f"git+{project}" if project else None,
        source_ref=f"refs/{kind}/{ref}" if ref else None,
        commit=get("CI_COMMIT_SHA"),
        workflow=get("CI_CONFIG_PATH"),
        invocation=get("CI_JOB_URL"),
        started=get("CI_JOB_STARTED_AT"),
        internal=_chosen(
            get, pipeline_id="CI_PIPELINE_ID", pipeline_source="CI_PIPELINE_SOURCE",
            job_id="CI_JOB_ID", project_id="CI_PROJECT_ID",
        ),
    )  # fmt: skip


def _tekton(get: _Get) -> CiRun:
    namespace = get("TEKTON_NAMESPACE") or "default"
    url = get("TEKTON_SOURCE_URL")
    return CiRun(
        builder=f"urn:tekton:{namespace}",
        source=f"git+{url}" if url else None,
        commit=get("TEKTON_SOURCE_COMMIT"),
        workflow=get("TEKTON_TASK_NAME"),
        invocation=f"urn:tekton:{namespace}:taskrun:{get('TEKTON_TASKRUN_NAME')}",
        internal=_chosen(get, taskrun_uid="TEKTON_TASKRUN_UID"),
    )


def _source(run: CiRun) -> list[dict[str, Any]]:
    if run.source is None or run.commit is None:
        return []
    uri = f"{run.source}@{run.source_ref}" if run.source_ref else run.source
    return [{"uri": uri, "digest": {"gitCommit": run.commit}}]


def _base(annotations: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the base model that the manifest itself names (image-spec, "Annotations")."""
    name = annotations.get(_BASE_NAME)
    if not name:
        return []
    found: dict[str, Any] = {"uri": f"oci://{name[:_MAX_VALUE]}", "name": "base-model"}
    match = _DIGEST.match(annotations.get(_BASE_DIGEST, ""))
    if match:
        found["digest"] = {match["algorithm"]: match["hex"]}
    return [found]


def _named(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the model's own files name; they give no digests, so none is claimed."""
    return [
        {"uri": _uri(name, kind), "name": label}
        for member, kind, label in (
            ("base_models", "models", "base-model"),
            ("datasets", "datasets", "dataset"),
        )
        for name in facts.get(member) or ()
        if isinstance(name, str) and len(name) <= _MAX_VALUE
    ]


def _uri(name: str, kind: str) -> str:
    if "://" in name:
        return _CREDENTIALS.sub("", name)
    if _HUB_NAME.match(name):
        path = name if kind == "models" else f"datasets/{name}"
        return f"https://huggingface.co/{path}"
    return f"urn:modelpack:{kind}:{name}"


def _chosen(get: _Get, **variables: str) -> dict[str, str]:
    return {name: value for name, variable in variables.items() if (value := get(variable))}


def _known(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}
