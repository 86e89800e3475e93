import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpack.errors import (
    AuthError,
    IntegrityError,
    ModelpackError,
    NetworkError,
    NotFoundError,
    SpaceError,
)
from modelpack.registry.errors import MAX_MESSAGE, clean, error_document, response_error


def document(code, message=""):
    return json.dumps({"errors": [{"code": code, "message": message, "detail": {"x": 1}}]}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, document("MANIFEST_UNKNOWN"), NotFoundError),
        (404, b"", NotFoundError),
        (400, document("BLOB_UNKNOWN"), NotFoundError),
        (401, document("UNAUTHORIZED"), AuthError),
        (403, document("DENIED", "requested access to the resource is denied"), AuthError),
        (400, document("DENIED"), AuthError),
        (403, document("DENIED", "quota exceeded"), SpaceError),
        (413, b"<html>too large</html>", SpaceError),
        (507, b"", SpaceError),
        (500, document("UNKNOWN", "write: no space left on device"), SpaceError),
        (400, document("DIGEST_INVALID"), IntegrityError),
        (400, document("SIZE_INVALID"), IntegrityError),
        (429, document("TOOMANYREQUESTS"), NetworkError),
        (429, document("DENIED", "quota of requests per minute exceeded"), NetworkError),
        (503, b"", NetworkError),
        (599, b"", NetworkError),
        (405, document("UNSUPPORTED"), ModelpackError),
        (501, b"", ModelpackError),
        (400, document("MANIFEST_INVALID", "no config"), ModelpackError),
        (302, b"", ModelpackError),
    ],
)
def test_mapping(status, body, kind):
    error = response_error(status, body, what="push of r.example/m:v1", registry="r.example")
    assert type(error) is kind
    assert "r.example/m:v1" in str(error)
    assert "\n" not in str(error)


def test_the_registrys_words_are_repeated():
    error = response_error(400, document("NAME_INVALID", "bad name"), what="w", registry="r")
    assert str(error) == "w: NAME_INVALID: bad name (HTTP status 400)"


@pytest.mark.parametrize(
    ("logged_in", "advice"), [(False, "try: modelpack login r.example"), (True, "try others")]
)
def test_login_hint(logged_in, advice):
    error = response_error(401, b"", what="w", registry="r.example", logged_in=logged_in)
    assert advice in str(error)
    assert "modelpack login r.example" in str(error)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("a\x1b[31mred\x00\r\nb\u202ec", "a [31mred b c"),
        ("see https://u:p@h.example/x?sig=abc#y now", "see https://h.example/x now"),
        ("sent Bearer eyJhbGciOi.abc-_def", "sent Bearer [removed]"),
        ("sent basic dXNlcjpwYXNz=", "sent basic [removed]"),
        ("x" * 1000, "x" * (MAX_MESSAGE - 1) + "…"),
    ],
    ids=["plain", "controls", "URL", "bearer", "basic", "long"],
)
def test_clean(text, expected):
    assert clean(text) == expected


@given(st.text())
def test_clean_gives_one_bounded_printable_line(text):
    cleaned = clean(text)
    assert len(cleaned) <= MAX_MESSAGE
    assert cleaned.isprintable()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"errors":{}}',
        b'{"errors":[]}',
        b'{"errors":[1]}',
        b'{"errors":[{"code":1,"message":[]}]}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_other_documents_say_nothing(body):
    assert error_document(body) == ("", "")


@given(st.binary(max_size=200))
def test_any_body_is_read(body):
    error_document(body)
