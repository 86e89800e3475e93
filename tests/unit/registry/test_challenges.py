import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpack.errors import FormatError
from modelpack.registry.challenges import MAX_CHALLENGE, Challenge, parse_challenges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://a.example/token",service="r",scope="repository:a/b:pull,push"',
            [
                Challenge(
                    scheme="bearer",
                    parameters={
                        "realm": "https://a.example/token",
                        "service": "r",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        ('BASIC realm="x"', [Challenge(scheme="basic", parameters={"realm": "x"})]),
        ("Basic", [Challenge(scheme="basic")]),
        (
            'Basic realm="a \\"quoted\\" name" , Bearer Realm = token',
            [
                Challenge(scheme="basic", parameters={"realm": 'a "quoted" name'}),
                Challenge(scheme="bearer", parameters={"realm": "token"}),
            ],
        ),
        (
            'Negotiate, Basic realm="r"',
            [Challenge(scheme="negotiate"), Challenge(scheme="basic", parameters={"realm": "r"})],
        ),
        (
            'NTLM TlRMTVNTUAAB==, Basic realm="r", charset="UTF-8"',
            [
                Challenge(scheme="ntlm", token="TlRMTVNTUAAB=="),
                Challenge(scheme="basic", parameters={"realm": "r", "charset": "UTF-8"}),
            ],
        ),
        (', ,Bearer realm="x",,error="invalid_token",', None),
        ("", []),
    ],
    ids=["bearer", "case", "bare", "two", "bare first", "token68", "empty elements", "empty"],
)
def test_parse(header, expected):
    if expected is None:
        expected = [Challenge(scheme="bearer", parameters={"realm": "x", "error": "invalid_token"})]
    assert list(parse_challenges(header)) == expected


@pytest.mark.parametrize(
    "header",
    [
        'Bearer realm="open',
        'Bearer realm="a" service="b"',
        'Bearer realm="a",realm="b"',
        'Bearer realm="a",Realm="b"',
        'Bearer realm="a\nb"',
        'realm="a"',
        "Bearer =x",
        'Bearer realm=a b"c',
        "Bearer " + "x" * MAX_CHALLENGE,
    ],
    ids=[
        "open quote",
        "no comma",
        "twice",
        "twice in other case",
        "line break",
        "no scheme",
        "no name",
        "stray quote",
        "too long",
    ],
)
def test_malformed(header):
    with pytest.raises(FormatError):
        parse_challenges(header)


_word = st.text(st.sampled_from("abcXYZ019-_.!#"), min_size=1, max_size=12)
_value = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
_challenge = st.tuples(_word, st.dictionaries(_word.map(str.lower), _value, max_size=4))


@given(st.lists(_challenge, min_size=1, max_size=4))
def test_round_trip(challenges):
    def quoted(value):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        " ".join([scheme, ", ".join(f"{name}={quoted(value)}" for name, value in items.items())])
        for scheme, items in challenges
    )
    parsed = [
        (challenge.scheme, dict(challenge.parameters)) for challenge in parse_challenges(header)
    ]
    assert parsed == [(scheme.lower(), items) for scheme, items in challenges]


@given(
    st.text(st.sampled_from('Basic Bearer realm=",\\ \t=abc12'), max_size=120)
    | st.text(max_size=60)
)
def test_any_text_is_a_value_or_our_own_error(header):
    try:
        challenges = parse_challenges(header)
    except FormatError:
        return
    assert all(challenge.scheme == challenge.scheme.lower() for challenge in challenges)


@pytest.mark.timeout(10)
def test_long_input_takes_linear_time():
    for piece in ('a="\\a', "a=b,", ", ", "a ", 'a="b",', "a=" + "=" * 50):
        header = ("Basic " + piece * MAX_CHALLENGE)[:MAX_CHALLENGE]
        try:
            parse_challenges(header)
        except FormatError:
            continue
