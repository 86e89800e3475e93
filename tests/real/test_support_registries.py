"""The registries are real ones: other programs push to them, and their refusals are their own."""

import json
import time

import httpx
import pytest

from tests.support import images, programs, registries

pytestmark = [pytest.mark.real("docker-registry")]


@pytest.fixture
def layout(tmp_path):
    """A stock image of one layer with two files, as an OCI layout."""
    files = {"weights/model.bin": bytes(range(256)) * 4096, "config.json": b"{}"}
    return images.write_image(tmp_path / "layout", [files])


def manifest_digest(registry, repository, tag, **options):
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    answer = httpx.head(
        f"{registry.url}/v2/{repository}/manifests/{tag}", headers=accept, **options
    )
    return answer.raise_for_status().headers["Docker-Content-Digest"]


@pytest.mark.real("oras")
def test_oras_pushes_an_artifact_and_pulls_it_back(docker_registry, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"weights")
    reference = f"{docker_registry.host}/support/oras:v1"
    programs.run("oras", "push", "--plain-http", reference, "weights.bin", cwd=tmp_path)
    back = tmp_path / "back"
    programs.run("oras", "pull", "--plain-http", "-o", back, reference)
    assert (back / "weights.bin").read_bytes() == b"weights"


@pytest.mark.real("skopeo")
def test_skopeo_copies_between_registries_and_keeps_the_digest(
    docker_registry, crane_registry, layout
):
    digest = images.push_image(layout, f"{docker_registry.host}/support/skopeo:v1")
    programs.run(
        "skopeo",
        "copy",
        "--preserve-digests",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        f"docker://{docker_registry.host}/support/skopeo:v1",
        f"docker://{crane_registry.host}/copied:v1",
    )
    assert manifest_digest(crane_registry, "copied", "v1") == digest


@pytest.mark.real("crane", "skopeo")
def test_crane_reads_the_image(docker_registry, layout):
    reference = f"{docker_registry.host}/support/crane:v1"
    digest = images.push_image(layout, reference)
    assert programs.run("crane", "digest", "--insecure", reference).stdout.strip() == digest


@pytest.mark.real("crane", "skopeo")
def test_crane_finds_a_compressed_image_valid(docker_registry, tmp_path):
    # It takes every layer for gzip, whatever the media type says.
    layout = images.write_image(tmp_path / "gzip", [{"file": b"content"}], compressed=True)
    reference = f"{docker_registry.host}/support/crane:gzip"
    images.push_image(layout, reference)
    programs.run("crane", "validate", "--insecure", "--remote", reference)


@pytest.mark.real("skopeo", "podman")
def test_podman_pulls_the_image_and_mounts_it(docker_registry, podman, layout):
    reference = f"{docker_registry.host}/support/podman:v1"
    images.push_image(layout, reference)
    podman.run("pull", "--tls-verify=false", reference)
    listing = podman.in_mounted_image(reference, "find . -type f | sort; wc -c < weights/model.bin")
    assert listing.split() == ["./config.json", "./weights/model.bin", str(256 * 4096)]


@pytest.mark.real("cosign", "skopeo")
def test_cosign_signs_and_verifies_offline_with_a_key(docker_registry, layout, tmp_path):
    repository = f"{docker_registry.host}/support/cosign"
    signed = f"{repository}@{images.push_image(layout, f'{repository}:v1')}"
    no_password = {"COSIGN_PASSWORD": ""}
    programs.run("cosign", "generate-key-pair", cwd=tmp_path, env=no_password)
    key, public_key = tmp_path / "cosign.key", tmp_path / "cosign.pub"
    offline = ["--new-bundle-format=true", "--allow-http-registry"]

    verify = ["verify", "--key", public_key, "--insecure-ignore-tlog=true", *offline, signed]
    assert programs.run("cosign", *verify, check=False).returncode != 0  # not signed yet
    sign = ["sign", "--key", key, "--tlog-upload=false", "--use-signing-config=false", "-y"]
    programs.run("cosign", *sign, *offline, signed, env=no_password)
    assert json.loads(programs.run("cosign", *verify).stdout)

    # No referrers API here: the signature hangs on the fallback tag.
    tags = httpx.get(f"{docker_registry.url}/v2/support/cosign/tags/list").json()["tags"]
    assert signed.split("@")[1].replace(":", "-") in tags


def test_basic_authentication_is_really_asked_for(basic_auth_registry, tmp_path):
    url = f"{basic_auth_registry.url}/v2/"
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, auth=(registries.USERNAME, "wrong")).status_code == 401
    assert httpx.get(url, auth=(registries.USERNAME, registries.PASSWORD)).status_code == 200


@pytest.mark.real("skopeo")
def test_a_docker_config_opens_the_registry(basic_auth_registry, layout, tmp_path):
    config = registries.docker_config(tmp_path, basic_auth_registry.host)
    reference = f"{basic_auth_registry.host}/private/model:v1"
    with pytest.raises(programs.ProgramError, match="authentication required"):
        images.push_image(layout, reference)
    images.push_image(layout, reference, f"--authfile={config}")


@pytest.mark.real("skopeo")
def test_a_client_fetches_a_token_for_its_repository(token_registry, token_server, layout):
    images.push_image(layout, f"{token_registry.host}/team/model:v1")
    assert "repository:team/model:pull,push" in token_server.requests[0].scopes


@pytest.mark.real("skopeo")
def test_a_token_is_refused_once_it_has_expired(token_registry, token_server, layout):
    images.push_image(layout, f"{token_registry.host}/team/model:v1")
    token = token_server.token("repository:team/model:pull", lifetime=2)
    bearer = {"Authorization": f"Bearer {token}"}
    url = f"{token_registry.url}/v2/team/model/tags/list"

    assert httpx.get(url, headers=bearer).status_code == 200
    time.sleep(2.1)
    refused = httpx.get(url, headers=bearer)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith(f'Bearer realm="{token_server.url}"')


def test_a_token_for_another_repository_is_refused(token_registry, token_server):
    bearer = {"Authorization": f"Bearer {token_server.token('repository:team/other:pull')}"}
    url = f"{token_registry.url}/v2/team/model/tags/list"
    assert httpx.get(url, headers=bearer).status_code == 401


def test_the_token_server_asks_for_credentials_where_it_has_users(start_token_server):
    server = start_token_server(users={"ci": "secret"})
    scope = {"scope": "repository:a/b:pull", "service": "modelpack-tests"}
    assert httpx.get(server.url, params=scope).status_code == 401
    assert httpx.get(server.url, params=scope, auth=("ci", "secret")).json()["expires_in"] == 300
    assert [(r.username, r.granted) for r in server.requests] == [(None, False), ("ci", True)]


@pytest.mark.real("oras")
def test_tls_is_checked_against_the_private_ca(tls_registry, private_ca, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    push = ["push", f"{tls_registry.host}/team/model:v1", "file"]
    with pytest.raises(programs.ProgramError, match="unknown authority"):
        programs.run("oras", *push, cwd=tmp_path)
    programs.run("oras", *push, "--ca-file", private_ca.file, cwd=tmp_path)


@pytest.mark.real("oras")
def test_tokens_over_tls(start_registry, start_token_server, private_ca, tmp_path):
    tokens = start_token_server(tls=private_ca)
    registry = start_registry(auth=tokens, tls=private_ca)
    (tmp_path / "file").write_bytes(b"content")
    reference = f"{registry.host}/team/model:v1"
    programs.run("oras", "push", "--ca-file", private_ca.file, reference, "file", cwd=tmp_path)
    assert [one.granted for one in tokens.requests] == [True]


@pytest.mark.real("skopeo")
def test_a_registry_comes_back_on_its_port_with_its_data(start_registry, layout):
    registry = start_registry()
    digest = images.push_image(layout, f"{registry.host}/team/model:v1")
    host = registry.host
    registry.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{registry.url}/v2/")
    registry.start()
    assert registry.host == host
    assert manifest_digest(registry, "team/model", "v1") == digest


def test_a_registry_counts_its_requests(start_registry):
    registry = start_registry()
    httpx.get(f"{registry.url}/v2/")
    httpx.get(f"{registry.url}/v2/none/tags/list")
    assert [line.split(" sent=")[0] for line in registry.requests()] == [
        "200 GET /v2/",
        "404 GET /v2/none/tags/list",
    ]


def test_a_paused_registry_says_nothing(start_registry):
    registry = start_registry()
    registry.pause()
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{registry.url}/v2/", timeout=0.3)
    registry.resume()
    assert httpx.get(f"{registry.url}/v2/").status_code == 200


@pytest.mark.real("skopeo")
@pytest.mark.parametrize(("delete", "status"), [(True, 202), (False, 405)])
def test_deletion_is_a_setting(start_registry, layout, delete, status):
    registry = start_registry(delete=delete)
    digest = images.push_image(layout, f"{registry.host}/team/model:v1")
    assert httpx.delete(f"{registry.url}/v2/team/model/manifests/{digest}").status_code == status


@pytest.mark.real("skopeo")
def test_a_damaged_blob_is_served_as_it_is(start_registry, layout):
    registry = start_registry()
    images.push_image(layout, f"{registry.host}/team/model:v1")
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(
        (layout / "blobs/sha256" / index["manifests"][0]["digest"][7:]).read_bytes()
    )
    layer = manifest["layers"][0]["digest"]
    registry.blob_path(layer).write_bytes(b"damaged")
    assert httpx.get(f"{registry.url}/v2/team/model/blobs/{layer}").content == b"damaged"
