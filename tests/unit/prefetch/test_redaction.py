"""What may be a secret is cut out; what is not stays."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.prefetch.redaction import _RULES, _SUSPICIOUS, MAX_TEXT, redact, redact_all

SECRET = "hunter2hunter2"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJodW50ZXIyIn0.c2lnbmF0dXJlLWh1bnRlcjI"


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://user:{SECRET}@r.example/v2/ failed",
        f"GET https://{SECRET}@r.example/v2/ failed",
        f"proxy http://user:{SECRET}/x@proxy.example:3128 refused",
        f"proxy user:{SECRET}@proxy.example:3128 refused",
        f"socks5://user:{SECRET}@[::1]:1080",
        f"https://blobs.example/x?X-Amz-Signature={SECRET}&X-Amz-Date=1",
        f"redirect to https://blobs.example/x?{SECRET}",
        f"https://blobs.example/x#{SECRET}",
        f"/v2/token?service=a&token={SECRET}",
        f"registry.example/team/model:v1?token={SECRET}",
        f"registry.example/model@sha256:00ff?sig={SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"authorization='Basic {SECRET}'",
        f"answered 401 to Bearer {SECRET}",
        f"password={SECRET}",
        f"password: {SECRET}",
        f'{{"password": "{SECRET} with spaces"}}',
        f'{{"token":"{SECRET}"}}',
        f"identity_token={SECRET}",
        f"REGISTRY_PASSWORD={SECRET}",
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"api-key: {SECRET}",
        f"refresh_token = '{SECRET}'",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
        f"-----BEGIN EC PRIVATE KEY-----\n{SECRET}",
    ],
)
def test_secrets_are_cut_out(text):
    assert SECRET not in redact(text)
    assert SECRET not in str(redact_all({text: [text, {"a": (text,)}]}))


def test_tokens_are_cut_out_by_their_form():
    assert redact(f"got {JWT}!") == "got [removed]!"


@pytest.mark.parametrize(
    "text",
    [
        "registry.example/team/model:v1@sha256:" + "0a" * 32,
        "127.0.0.1:5000/model:v1@sha256:00ff",
        "oci:/var/lib/models:v1@sha256:00ff",
        "https://registry.example/v2/model/manifests/v1",
        "no signature by an identity that the policy accepts; sign it",
        "signature: none of the 3 keys fits",
        "the token has expired; try: modelpack login registry.example",
        "who is user@example.com? an identity",
        "is it there? yes",
        "waits until 08:00 (in 1h 30m)",
        "a=b c=d",
        "/run/containerd/containerd.sock: connection refused; is containerd running?",
        "Größe 4,2 GiB: „ready“",
        "",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


def test_host_and_path_of_a_url_stay():
    assert redact("http://u:p@h.example:8080/a/b?c=d failed") == "http://h.example:8080/a/b failed"


def test_long_texts_are_cut():
    assert len(redact("a" * (10 * MAX_TEXT))) == MAX_TEXT


@pytest.mark.parametrize(
    "piece", ["a", "a:", ":a@", "https://", "eyJ", "?a=", "password", '"', " "]
)
def test_no_text_takes_long(piece):
    began = time.monotonic()
    redact(piece * MAX_TEXT)
    assert time.monotonic() - began < 30


def test_what_is_no_text_stays():
    assert redact_all({"a": [1, 2.5, None, True]}) == {"a": [1, 2.5, None, True]}


@given(st.text(alphabet="ab:/@?=#&\"' \npassword.token-sha256", max_size=60))
@settings(max_examples=300, deadline=None)
def test_nothing_is_left_to_cut_out_afterwards(text):
    once = redact(text)
    assert redact(once) == once


@given(st.text(alphabet="ab:/@?=&\"' \npasswordtokenBearer.sha256eyJ-_", max_size=60))
@settings(max_examples=300, deadline=None)
def test_what_is_not_looked_at_closely_has_nothing_to_cut_out(text):
    if _SUSPICIOUS.search(text) is None:
        for pattern, replacement in _RULES:
            assert pattern.sub(replacement, text) == text
