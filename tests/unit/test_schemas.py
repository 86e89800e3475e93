"""The schemas of this format's JSON: what the code writes fits, what it refuses does not."""

import copy
import json
import struct
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import modelpack
from modelpack.chunkindex import MAGIC, decode_index, encode_index
from modelpack.errors import FormatError
from modelpack.facts import ModelFacts
from modelpack.facts.model import clean_text
from modelpack.stores.receipts import Receipt
from tests.support.indexes import CHUNK, indexes, make_index
from tests.support.samplemodel import build_sample

ROOT = Path(__file__).parents[2]
SCHEMAS = {
    name: json.loads((ROOT / "schemas" / f"{name}.schema.json").read_text())
    for name in ("chunk-index", "model-facts", "receipt")
}
HEAD, FACTS, RECEIPT = map(jsonschema.Draft202012Validator, SCHEMAS.values())


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_the_schema_is_one(schema):
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.fixture(scope="module")
def pulled(tmp_path_factory):
    root = tmp_path_factory.mktemp("schemas")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        model = build_sample(root / "model")
        modelpack.push(model, f"oci:{root / 'store'}:v1")
        modelpack.pull(f"oci:{root / 'store'}:v1", root / "out")
    return root / "out" / ".modelpack"


def split(raw):
    """Return an encoded index's head as a value, and its table."""
    _, head_bytes, _ = struct.unpack_from("<8sII", raw)
    return json.loads(raw[16 : 16 + head_bytes]), raw[16 + head_bytes :]


def join(head, table):
    raw = json.dumps(head).encode()
    return struct.pack("<8sII", MAGIC, len(raw), len(table) // 36) + raw + table


def test_real_output_fits(pulled):
    head, table = split((pulled / "chunks.bin").read_bytes())
    HEAD.validate(head)
    decode_index(join(head, table))
    facts = json.loads((pulled / "model.json").read_text())
    assert facts["architectures"] == ["LlamaForCausalLM"]
    FACTS.validate(facts)
    receipt = json.loads((pulled / "receipt.json").read_text())
    assert receipt["complete"] is True
    RECEIPT.validate(receipt)


@given(indexes())
@settings(max_examples=80, deadline=None)
def test_every_valid_head_fits(index):
    HEAD.validate(split(encode_index(index))[0])


GOOD, TABLE = split(
    encode_index(
        make_index(
            [("sub/a.bin", [CHUNK, 7]), ("b.txt", [3]), ("empty", [])], modes={"b.txt": 0o755}
        )
    )
)


def changed(*steps, value=None, drop=False):
    """Return the good head with the member at ``steps`` changed or dropped."""
    head = copy.deepcopy(GOOD)
    place = head
    for step in steps[:-1]:
        place = place[step]
    if drop:
        del place[steps[-1]]
    else:
        place[steps[-1]] = value
    return head


FILE, LAYER = ("files", 0), ("layers", 0)
ODD = (None, True, 1.5, "1", [], {}, -1)
MALFORMED = {
    "null": None,
    "list": [],
    "no-layers": changed("layers", drop=True),
    "no-files": changed("files", drop=True),
    "more-members": changed("version", value=1),
    "layers-object": changed("layers", value={}),
    "files-object": changed("files", value={}),
    "layer-null": changed(*LAYER, value=None),
    "file-list": changed(*FILE, value=[]),
    "many-layers": changed("layers", value=GOOD["layers"] * 50),
    "layer-more": changed(*LAYER, "extra", value=1),
    "file-more": changed(*FILE, "extra", value=1),
    **{f"layer-no-{name}": changed(*LAYER, name, drop=True) for name in GOOD["layers"][0]},
    **{f"file-no-{name}": changed(*FILE, name, drop=True) for name in GOOD["files"][0]},
    **{
        f"layer-size-{odd!r}": changed(*LAYER, "size", value=odd)
        for odd in (*ODD, 0, 1024, 1537, 2**53 + 512)
    },
    **{
        f"layer-digest-{number}": changed(*LAYER, "digest", value=odd)
        for number, odd in enumerate(
            [
                *ODD,
                "",
                "sha256:",
                "a" * 64,
                "sha256:" + "a" * 63,
                "sha256:" + "a" * 65,
                "sha256:" + "A" * 64,
                "sha256:" + "a" * 64 + "\n",
                "sha512:" + "a" * 64,
                "md5:" + "a" * 32,
                "blake3:" + "a" * 64,
                "sha256:../" + "a" * 61,
            ]
        )
    },
    **{
        f"file-{name}-{odd!r}": changed(*FILE, name, value=odd)
        for name in ("size", "layer", "offset", "chunks")
        for odd in (*ODD, 2**53 + 512)
    },
    "layer-99": changed(*FILE, "layer", value=99),
    "offset-0": changed(*FILE, "offset", value=0),
    "offset-513": changed(*FILE, "offset", value=513),
    "chunks-many": changed(*FILE, "chunks", value=4 * 1024 * 1024 + 1),
    "size-without-chunks": changed("files", 0, "chunks", value=0),
    "chunks-without-size": changed("files", 0, "size", value=0),
    **{
        f"mode-{odd!r}": changed(*FILE, "mode", value=odd)
        for odd in (*ODD, 420, "644", "0600", "0777", "04755", "0644 ", "\uff10644")
    },
    **{
        f"blake3-{number}": changed(*FILE, "blake3", value=odd)
        for number, odd in enumerate(
            [
                *ODD,
                "",
                "0" * 62,
                "0" * 66,
                "0" * 63 + "g",
                "0" * 63 + "A",
                " " + "0" * 64,
                "0" * 64 + "\n",
            ]
        )
    },
    **{
        f"path-{odd[:20]!a}": changed(*FILE, "path", value=odd)
        for odd in (
            *("", "/", "/etc/passwd", "a/", "a//b", ".", "..", "../a", "a/..", "a/../b", "./a"),
            *("a\\b", "a\0b", "a\nb", "a\n", "\x7f", "\x85", ".wh.a", "a/.wh..wh..opq"),
            *("a" * 256, "a/" * 128 + "a", "/".join(["a" * 255] * 13)),
            *(".modelpack", ".modelpack/a", ".ModelPack/a", ".modelpac\u212a"),
        )
    },
    **{
        f"path-{odd!r}": changed(*FILE, "path", value=odd)
        for odd in (None, True, 1, ["a"], {"a": "b"})
    },
}

# What a schema cannot say, and docs/format.md, section 5.3, does.
BEYOND_A_SCHEMA = {
    "one-path-twice": changed("files", 1, "path", value="sub/a.bin"),
    "case": changed("files", 1, "path", value="SUB/A.bin"),
    "unicode-form": changed("files", 1, "path", value="EMPTY"),
    "file-and-directory": changed("files", 1, "path", value="sub"),
    "directories-of-two-spellings": changed("files", 1, "path", value="Sub/b"),
    "lone-surrogate": changed(*FILE, "path", value="\ud800"),
    "bytes-of-a-name": changed(*FILE, "path", value="é" * 128),
    "bytes-of-a-path": changed(*FILE, "path", value="/".join(["é" * 100] * 20)),
    "no-such-layer": changed("files", 2, "layer", value=2),
    "order-of-layers": changed("files", 0, "layer", value=1),
    "offset-elsewhere": changed(*FILE, "offset", value=GOOD["files"][0]["offset"] + 512),
    "size-of-the-layer": changed(*LAYER, "size", value=GOOD["layers"][0]["size"] + 512),
    "a-layer-without-files": changed("layers", value=[*GOOD["layers"], GOOD["layers"][0]]),
    "a-size-the-chunks-do-not-have": changed("files", 1, "size", value=4),
    "a-count-the-table-does-not-have": changed("files", 1, "chunks", value=2),
    # JSON Schema takes 3.0 for an integer.
    "a-whole-number-with-a-point": changed("files", 1, "size", value=3.0),
}


def test_the_good_head_is_good():
    HEAD.validate(GOOD)
    assert len(decode_index(join(GOOD, TABLE)).files) == 3


@pytest.mark.parametrize("head", MALFORMED.values(), ids=MALFORMED)
def test_code_and_schema_refuse_a_malformed_head(head):
    assert not HEAD.is_valid(head)
    with pytest.raises(FormatError):
        decode_index(join(head, TABLE))


@pytest.mark.parametrize("head", BEYOND_A_SCHEMA.values(), ids=BEYOND_A_SCHEMA)
def test_what_only_the_code_refuses(head):
    assert HEAD.is_valid(head)
    with pytest.raises(FormatError):
        decode_index(join(head, TABLE))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**54) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["path", "size", "digest"]), inner, max_size=2)
    ),
    max_leaves=4,
)
PLACES = [(), ("layers",), ("files",), LAYER, FILE]
PLACES += [(*LAYER, name) for name in GOOD["layers"][0]] + [(*FILE, n) for n in GOOD["files"][0]]


@given(st.lists(st.tuples(st.sampled_from(PLACES), JSON), min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_what_the_code_takes_the_schema_takes(changes):
    head = GOOD
    for steps, value in changes:
        try:
            head = changed(*steps, value=value) if steps else value
        except (KeyError, IndexError, TypeError):
            continue
    try:
        decode_index(join(head, TABLE))
    except FormatError:
        return
    HEAD.validate(head)


def test_duplicate_members_are_refused_though_a_parser_hides_them():
    raw = json.dumps(GOOD).replace('"size": 3,', '"size": 4, "size": 3,', 1).encode()
    HEAD.validate(json.loads(raw))
    with pytest.raises(FormatError, match="occurs twice"):
        decode_index(struct.pack("<8sII", MAGIC, len(raw), len(TABLE) // 36) + raw + TABLE)


# --- model.json ---------------------------------------------------------------------------------

WORD = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8)
TEXT = st.lists(WORD, min_size=1, max_size=3).map(" ".join).filter(lambda t: clean_text(t) == t)
COUNT = st.integers(0, 2**63 - 1)
KINDS = {str: TEXT, tuple: st.lists(TEXT, max_size=3).map(tuple), int: COUNT}


@given(
    st.builds(
        ModelFacts,
        name=TEXT,
        formats=KINDS[tuple],
        parameters=COUNT,
        parameters_by_dtype=st.dictionaries(TEXT, COUNT, max_size=3),
        tensor_count=COUNT,
        chat_template=st.booleans(),
        languages=KINDS[tuple],
        license_link=TEXT,
        warnings=KINDS[tuple],
    )
)
@settings(max_examples=150, deadline=None)
def test_facts_fit(facts):
    value = facts.to_json()
    FACTS.validate(value)
    assert ModelFacts.from_json(value) == facts


def test_the_facts_schema_names_every_member():
    members = {"version", *ModelFacts.__slots__}
    assert set(SCHEMAS["model-facts"]["properties"]) == members


BAD_FACTS = {
    "list": [],
    "no-version": {},
    "version-2": {"version": 2},
    "version-text": {"version": "1"},
    "name-null": {"version": 1, "name": None},
    "name-empty": {"version": 1, "name": ""},
    "name-lines": {"version": 1, "name": "a\nb"},
    "name-line-end": {"version": 1, "name": "a\n"},
    "name-space": {"version": 1, "name": " a"},
    "name-escape": {"version": 1, "name": "\x1b[31m"},
    "name-long": {"version": 1, "name": "a" * 1025},
    "number-negative": {"version": 1, "parameters": -1},
    "number-large": {"version": 1, "parameters": 2**63},
    "number-bool": {"version": 1, "parameters": True},
    "number-text": {"version": 1, "parameters": "8b"},
    "list-text": {"version": 1, "licenses": "mit"},
    "list-null": {"version": 1, "licenses": [None]},
    "list-long": {"version": 1, "tags": ["a"] * 1001},
    "dtypes-list": {"version": 1, "parameters_by_dtype": [1]},
    "dtypes-text": {"version": 1, "parameters_by_dtype": {"F32": "1"}},
    "template-number": {"version": 1, "chat_template": 1},
}


@pytest.mark.parametrize("value", BAD_FACTS.values(), ids=BAD_FACTS)
def test_code_and_schema_refuse_bad_facts(value):
    assert not FACTS.is_valid(value)
    with pytest.raises(FormatError):
        ModelFacts.from_json(value)


def test_further_members_of_facts_are_ignored():
    value = {"version": 1, "name": "m", "from_the_future": [1]}
    FACTS.validate(value)
    assert ModelFacts.from_json(value) == ModelFacts(name="m")


# --- receipt.json -------------------------------------------------------------------------------

GOOD_RECEIPT = {
    "version": 1,
    "reference": "localhost:5000/a/b:v1",
    "digest": "sha256:" + "0" * 64,
    "complete": True,
    "selected": False,
    "files": {"a/b": [1, 2, 3, 4, 5]},
    "owned": ["a/b", "c"],
}


def test_a_receipt_is_read_as_it_was_written():
    RECEIPT.validate(GOOD_RECEIPT)
    assert Receipt.from_json(GOOD_RECEIPT).to_json() == GOOD_RECEIPT


BAD_RECEIPTS = {
    "list": [],
    **{
        f"no-{name}": {key: item for key, item in GOOD_RECEIPT.items() if key != name}
        for name in GOOD_RECEIPT
    },
    "version-2": {**GOOD_RECEIPT, "version": 2},
    "files-list": {**GOOD_RECEIPT, "files": [["a", [1, 2, 3, 4, 5]]]},
    "files-up": {**GOOD_RECEIPT, "files": {"../a": [1, 2, 3, 4, 5]}},
    "files-short": {**GOOD_RECEIPT, "files": {"a": [1, 2, 3, 4]}},
    "files-null": {**GOOD_RECEIPT, "files": {"a": None}},
    "owned-absolute": {**GOOD_RECEIPT, "owned": ["/etc/passwd"]},
    "owned-number": {**GOOD_RECEIPT, "owned": [1]},
}


@pytest.mark.parametrize("value", BAD_RECEIPTS.values(), ids=BAD_RECEIPTS)
def test_code_and_schema_refuse_a_bad_receipt(value):
    assert not RECEIPT.is_valid(value)
    with pytest.raises(FormatError):
        Receipt.from_json(value)
