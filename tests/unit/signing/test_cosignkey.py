import base64
import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.errors import FormatError, ModelpackError, UsageError
from modelpack.signing import cosignkey

SECRET = b"pkcs8 of a key"
PEM = cosignkey.encrypt(SECRET, b"password")


def value_of(pem):
    return json.loads(base64.b64decode(b"".join(pem.split(b"-----")[2].split())))


def pem_of(value, label=b"ENCRYPTED SIGSTORE PRIVATE KEY"):
    body = base64.b64encode(json.dumps(value).encode())
    return b"-----BEGIN " + label + b"-----\n" + body + b"\n-----END " + label + b"-----\n"


def test_what_is_written_is_cosigns_form():
    value = value_of(PEM)
    assert value["kdf"]["name"] == "scrypt"
    assert value["kdf"]["params"] == {"N": 65536, "r": 8, "p": 1}
    assert len(base64.b64decode(value["kdf"]["salt"])) == 32
    assert value["cipher"]["name"] == "nacl/secretbox"
    assert len(base64.b64decode(value["cipher"]["nonce"])) == 24
    assert all(len(line) <= 64 for line in PEM.splitlines())
    assert SECRET not in base64.b64decode(value["ciphertext"])


def test_two_keys_under_one_password_differ():
    assert cosignkey.encrypt(SECRET, b"password") != PEM
    fixed = bytes
    assert cosignkey.encrypt(SECRET, b"p", fixed) == cosignkey.encrypt(SECRET, b"p", fixed)


def test_the_older_label_is_read():
    old = PEM.replace(b"SIGSTORE", b"COSIGN")
    assert cosignkey.is_cosign_key(old)
    assert cosignkey.decrypt(old, b"password") == SECRET


# Made by go-securesystemslib, which cosign uses, with the three strengths that it accepts; inside
# is the text "reallyimportant" under the password "supersecret".
VECTORS = {
    32768: (
        "WO3mVvyTwJ9vwT5/Tk5OW5WPIBUofMjcpEfrLnfY4uA=",
        "tCy7HcTFr4uxv4Nrg/DWmncuZ148U1MX",
        "08n43p5G5yviPEZpO7tPPF4aZQkWiWjkv4taFdhDBA0tamKH4nw=",
    ),
    65536: (
        "FhzPOt9/bJG4PTq6lQ6ecG6GzaOuOy/ynG5+yRiFlNs=",
        "aw1ng1jHaDz/tQ7V2gR9O2+IGQ8xJEuE",
        "HycvuLZL4sYH0BrYTh4E/H20VtAW6u5zL5Pr+IBjYLYnCPzDkq8=",
    ),
    131072: (
        "m38E3kouJTtiheLQN22NQ8DTito5hrjpUIskqcd375k=",
        "Y6PM13yA+o44pE/W1ZBwczeGnTV/m9Zc",
        "6H8sqj1K6B6yDjtH5AQ6lbFigg/C2yDDJc4rYJ79w9aVPImFIPI=",
    ),
}


@pytest.mark.parametrize("cost", VECTORS)
def test_every_strength_that_cosign_accepts(cost):
    salt, nonce, ciphertext = VECTORS[cost]
    value = {
        "kdf": {"name": "scrypt", "params": {"N": cost, "r": 8, "p": 1}, "salt": salt},
        "cipher": {"name": "nacl/secretbox", "nonce": nonce},
        "ciphertext": ciphertext,
    }
    # The library that made these encrypts JSON values, here the base64 of the text.
    opened = json.loads(cosignkey.decrypt(pem_of(value), b"supersecret"))
    assert base64.b64decode(opened) == b"reallyimportant"


BROKEN = {
    "scrypt-cost-that-takes-all-memory": lambda v: v["kdf"]["params"].update(N=2**30),
    "scrypt-cost-too-low": lambda v: v["kdf"]["params"].update(N=1024),
    "scrypt-cost-as-float": lambda v: v["kdf"]["params"].update(N=65536.0),
    "scrypt-r": lambda v: v["kdf"]["params"].update(r=2**20),
    "scrypt-p-as-true": lambda v: v["kdf"]["params"].update(p=True),
    "another-kdf": lambda v: v["kdf"].update(name="pbkdf2"),
    "another-cipher": lambda v: v["cipher"].update(name="aes"),
    "short-nonce": lambda v: v["cipher"].update(nonce="AAAA"),
    "long-salt": lambda v: v["kdf"].update(salt=base64.b64encode(bytes(300)).decode()),
    "salt-that-is-no-text": lambda v: v["kdf"].update(salt=1),
    "unknown-member": lambda v: v.update(extra=1),
    "missing-member": lambda v: v.pop("cipher"),
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_broken_files(change):
    value = copy.deepcopy(value_of(PEM))
    change(value)
    with pytest.raises(FormatError):
        cosignkey.decrypt(pem_of(value), b"password")


@pytest.mark.parametrize(
    "pem",
    [PEM[:-20], PEM + PEM, b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n!\n", b""],
    ids=["cut-off", "twice", "not-base64", "empty"],
)
def test_not_one_pem_block(pem):
    with pytest.raises(FormatError):
        cosignkey.decrypt(pem, b"password")


def test_changed_ciphertext_reads_as_a_wrong_password():
    value = value_of(PEM)
    raw = bytearray(base64.b64decode(value["ciphertext"]))
    raw[20] ^= 1
    value["ciphertext"] = base64.b64encode(raw).decode()
    with pytest.raises(UsageError, match="does not open"):
        cosignkey.decrypt(pem_of(value), b"password")


@settings(max_examples=80, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["kdf", "cipher", "ciphertext", "name", "params", "salt", "N"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_refused_with_an_error_of_ours(value):
    with pytest.raises(ModelpackError):
        cosignkey.decrypt(pem_of(value), b"password")
