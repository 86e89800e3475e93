import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack import cache as cache_module
from modelpack.cache import Cache, cache_home


@pytest.fixture
def cache(tmp_path):
    return Cache("layers", home=tmp_path / "home")


def entry_of(tmp_path):
    (entry,) = (tmp_path / "home" / "layers").iterdir()
    return entry


def test_what_was_put_is_got(cache):
    assert cache.get(b"key") is None
    cache.put(b"key", b"value")
    assert cache.get(b"key") == b"value"
    assert cache.get(b"other") is None
    cache.put(b"key", b"")
    assert cache.get(b"key") == b""


@given(st.dictionaries(st.binary(max_size=50), st.binary(max_size=100), max_size=5))
@settings(deadline=None)
def test_keys_do_not_mix(tmp_path_factory, values):
    cache = Cache("layers", home=tmp_path_factory.mktemp("cache"))
    for key, value in values.items():
        cache.put(key, value)
    assert {key: cache.get(key) for key in values} == values


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:20],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:-1] + b"x",
        lambda data: b"x" + data[1:],
        lambda data: bytes(len(data)),
    ],
    ids=["empty", "cut", "shorter", "longer", "value", "checksum", "zeros"],
)
def test_damage_is_a_miss_and_goes_away(cache, tmp_path, damage):
    cache.put(b"key", b"value")
    entry = entry_of(tmp_path)
    entry.write_bytes(damage(entry.read_bytes()))
    assert cache.get(b"key") is None
    assert not entry.exists()
    cache.put(b"key", b"value")
    assert cache.get(b"key") == b"value"


def test_a_directory_in_the_way_is_a_miss(cache, tmp_path):
    cache.put(b"key", b"value")
    entry = entry_of(tmp_path)
    entry.unlink()
    entry.mkdir()
    assert cache.get(b"key") is None
    cache.put(b"key", b"value")
    assert cache.get(b"key") is None


def test_a_place_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    cache = Cache("layers", home=tmp_path / "file")
    cache.put(b"key", b"value")
    assert cache.get(b"key") is None


def test_others_cannot_read_or_plant(cache, tmp_path):
    cache.put(b"key", b"value")
    assert (tmp_path / "home" / "layers").stat().st_mode & 0o077 == 0
    assert entry_of(tmp_path).stat().st_mode & 0o077 == 0


def test_the_entries_unused_for_longest_go(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "MAX_ENTRIES", 8)
    cache = Cache("layers", home=tmp_path / "home")
    for number in range(8):
        cache.put(str(number).encode(), b"")
    for number, entry in enumerate(sorted((tmp_path / "home" / "layers").iterdir())):
        os.utime(entry, (number, number))
    keys = {number: cache._path(str(number).encode()) for number in range(8)}
    oldest = sorted(keys, key=lambda number: keys[number].stat().st_mtime)
    assert cache.get(str(oldest[0]).encode()) == b""  # used: no longer the oldest
    cache.put(b"new", b"")
    assert cache.get(b"new") == b""
    assert cache.get(str(oldest[0]).encode()) == b""
    assert [cache.get(str(number).encode()) for number in oldest[1:3]] == [None, None]
    assert cache.get(str(oldest[3]).encode()) == b""


def test_many_writers_and_readers_see_whole_entries(cache):
    values = [bytes([n]) * 50_000 for n in range(4)]
    wrong = []

    def work(value):
        for _ in range(30):
            cache.put(b"key", value)
            found = cache.get(b"key")
            if found not in values:
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("kind", ["", "../x", "A", "a/b", "a\n"])
def test_a_kind_is_a_word(kind, tmp_path):
    with pytest.raises(ValueError, match="no kind"):
        Cache(kind, home=tmp_path)


@pytest.mark.parametrize(
    ("xdg", "home", "expected"),
    [
        ("/x", "/h", "/x/modelpack"),
        ("", "/h", "/h/.cache/modelpack"),
        ("relative", "/h", "/h/.cache/modelpack"),
    ],
)
def test_where_it_is(monkeypatch, xdg, home, expected):
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    monkeypatch.setenv("HOME", home)
    assert str(cache_home()) == expected


def test_a_user_without_a_home_caches_nothing(monkeypatch):
    """Containers run under user ids that no passwd lists."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert str(cache_home()) == "/.cache/modelpack"
