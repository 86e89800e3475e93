import json

import pytest

from modelpack.trust.provenance import BUILD_TYPE, ci_run, predicate

FINISHED = "2026-01-01T00:00:00Z"
GITHUB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "o/r",
    "GITHUB_WORKFLOW_REF": "o/r/.github/workflows/release.yml@refs/heads/main",
    "GITHUB_REF": "refs/heads/main",
    "GITHUB_SHA": "a" * 40,
    "GITHUB_RUN_ID": "17",
    "GITHUB_RUN_ATTEMPT": "2",
    "GITHUB_EVENT_NAME": "push",
    "RUNNER_ENVIRONMENT": "github-hosted",
}
GITLAB = {
    "GITLAB_CI": "true",
    "CI_SERVER_URL": "https://gitlab.example",
    "CI_PROJECT_URL": "https://gitlab.example/o/r",
    "CI_COMMIT_REF_NAME": "v1",
    "CI_COMMIT_TAG": "v1",
    "CI_COMMIT_SHA": "b" * 40,
    "CI_JOB_URL": "https://gitlab.example/o/r/-/jobs/5",
    "CI_RUNNER_ID": "3",
    "CI_CONFIG_PATH": ".gitlab-ci.yml",
    "CI_JOB_STARTED_AT": "2026-01-01T00:00:00Z",
    "CI_PIPELINE_ID": "9",
}
TEKTON = {
    "TEKTON_TASKRUN_NAME": "sign-abc",
    "TEKTON_NAMESPACE": "ci",
    "TEKTON_TASKRUN_UID": "uid-1",
    "TEKTON_SOURCE_URL": "https://git.example/o/r",
    "TEKTON_SOURCE_COMMIT": "c" * 40,
}


def made(environ, *, facts=None, annotations=None):
    return predicate(
        "registry.example/team/llama",
        facts=facts or {},
        annotations=annotations or {},
        environ=environ,
        finished=FINISHED,
    )


@pytest.mark.parametrize(
    ("environ", "builder", "source", "invocation"),
    [
        (
            GITHUB,
            "https://github.com/actions/runner/github-hosted",
            {
                "uri": "git+https://github.com/o/r@refs/heads/main",
                "digest": {"gitCommit": "a" * 40},
            },
            "https://github.com/o/r/actions/runs/17/attempts/2",
        ),
        (
            GITLAB,
            "https://gitlab.example/-/runners/3",
            {
                "uri": "git+https://gitlab.example/o/r@refs/tags/v1",
                "digest": {"gitCommit": "b" * 40},
            },
            "https://gitlab.example/o/r/-/jobs/5",
        ),
        (
            TEKTON,
            "urn:tekton:ci",
            {"uri": "git+https://git.example/o/r", "digest": {"gitCommit": "c" * 40}},
            "urn:tekton:ci:taskrun:sign-abc",
        ),
    ],
    ids=["github", "gitlab", "tekton"],
)
def test_what_ci_systems_say(environ, builder, source, invocation):
    value = made(environ)
    definition, details = value["buildDefinition"], value["runDetails"]
    assert definition["buildType"] == BUILD_TYPE
    assert definition["externalParameters"]["repository"] == "registry.example/team/llama"
    assert definition["resolvedDependencies"] == [source]
    assert details["builder"]["id"] == builder
    assert details["metadata"]["invocationId"] == invocation
    assert details["metadata"]["finishedOn"] == FINISHED


def test_nothing_is_invented_where_nothing_is_known():
    value = made({})
    assert value["buildDefinition"] == {
        "buildType": BUILD_TYPE,
        "externalParameters": {"repository": "registry.example/team/llama"},
    }
    assert value["runDetails"]["metadata"] == {"finishedOn": FINISHED}
    assert "resolvedDependencies" not in made({"GITHUB_ACTIONS": "true"})["buildDefinition"]


def test_what_the_model_was_made_from():
    facts = {
        "base_models": ["meta/llama", "https://example.com/model", "local", 7],
        "datasets": ["org/text"],
    }
    annotations = {
        "org.opencontainers.image.base.name": "registry.example/base:v1",
        "org.opencontainers.image.base.digest": "sha256:" + "1" * 64,
    }
    found = made({}, facts=facts, annotations=annotations)["buildDefinition"]
    assert found["resolvedDependencies"] == [
        {
            "uri": "oci://registry.example/base:v1",
            "name": "base-model",
            "digest": {"sha256": "1" * 64},
        },
        {"uri": "https://huggingface.co/meta/llama", "name": "base-model"},
        {"uri": "https://example.com/model", "name": "base-model"},
        {"uri": "urn:modelpack:models:local", "name": "base-model"},
        {"uri": "https://huggingface.co/datasets/org/text", "name": "dataset"},
    ]


@pytest.mark.parametrize("value", ["a\nb", "x" * 2000, "\x1b[2J"])
def test_odd_variables_count_as_not_set(value):
    assert ci_run({**GITHUB, "GITHUB_SHA": value}).commit is None


def test_credentials_in_a_url_are_left_out():
    environ = {
        "TEKTON_TASKRUN_NAME": "x",
        "TEKTON_SOURCE_URL": "https://user:secret@git.example/o/r",
        "TEKTON_SOURCE_COMMIT": "a" * 40,
    }
    facts = {"datasets": ["https://user:secret@data.example/x"]}
    said = predicate("r.example/m", facts=facts, annotations={}, environ=environ, finished="")
    text = json.dumps(said)
    assert "secret" not in text
    assert "git+https://git.example/o/r" in text
    assert "https://data.example/x" in text
