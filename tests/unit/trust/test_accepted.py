import threading

import pytest

from modelpack.digest import Digest
from modelpack.errors import FormatError, ModelpackError
from modelpack.reference import parse_reference
from modelpack.signing.history import Accepted
from modelpack.trust.accepted import Records

NAME = parse_reference("registry.example/team/llama:latest")


def accepted(number):
    return Accepted(digest=Digest.of(b"%d" % number), version=None, created=None)


def test_a_name_is_a_repository_with_a_tag(tmp_path):
    records = Records(tmp_path / "state")
    assert records.read(NAME) == ()
    records.add(NAME, accepted(1))
    records.add(NAME, accepted(2))
    assert records.read(NAME) == (accepted(1), accepted(2))
    assert records.read(parse_reference("registry.example/team/llama:v2")) == ()
    assert records.read(parse_reference("registry.example/team/other:latest")) == ()


def test_a_digest_is_no_name(tmp_path):
    records = Records(tmp_path / "state")
    pinned = NAME.with_digest(Digest.of(b"1"))
    records.add(pinned, accepted(1))
    records.add(parse_reference(f"registry.example/team/llama@{Digest.of(b'1')}"), accepted(1))
    assert not (tmp_path / "state").exists()
    assert records.read(pinned) == ()


def test_records_at_once_lose_nothing(tmp_path):
    records = Records(tmp_path / "state")
    threads = [
        threading.Thread(target=records.add, args=(NAME, accepted(number))) for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(records.read(NAME)) == {accepted(number) for number in range(20)}


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"\xff", b'{"accepted":[{}]}', b" " * 2**19])
def test_a_damaged_record_is_named(tmp_path, raw):
    records = Records(tmp_path)
    records.add(NAME, accepted(1))
    [path] = tmp_path.glob("*.json")
    path.write_bytes(raw)
    for action in (lambda: records.read(NAME), lambda: records.add(NAME, accepted(2))):
        with pytest.raises(FormatError, match=path.name):
            action()
    assert path.read_bytes() == raw


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "state").write_text("")
    with pytest.raises(ModelpackError, match="cannot record"):
        Records(tmp_path / "state").add(NAME, accepted(1))


@pytest.mark.parametrize(
    "text",
    ["REGISTRY.example/team/llama:latest", "registry.example:443/team/llama:latest"],
    ids=["case", "port"],
)
def test_another_spelling_of_a_name_is_the_same_name(tmp_path, text):
    """Or an older version would be let in by it."""
    records = Records(tmp_path / "state")
    records.add(NAME, accepted(1))
    assert records.read(parse_reference(text)) == (accepted(1),)


def test_a_layout_is_known_by_its_place(tmp_path, monkeypatch):
    records = Records(tmp_path / "state")
    monkeypatch.chdir(tmp_path)
    records.add(parse_reference("oci:./store:v1"), accepted(1))
    assert records.read(parse_reference(f"oci:{tmp_path}/store:v1")) == (accepted(1),)
    monkeypatch.chdir("/")
    assert records.read(parse_reference("oci:./store:v1")) == ()
