import base64
import hashlib
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings

from modelpack.errors import FormatError, ModelpackError, UsageError
from modelpack.signing import keys
from modelpack.signing.keys import PrivateKey, PublicKey

QUICK_KINDS = ("ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519")


@pytest.fixture(scope="module")
def rsa_2048():
    return rsa.generate_private_key(65537, 2048)


def pem(key, password=None):
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def public_pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("kind", QUICK_KINDS)
@pytest.mark.parametrize("curve_hash", [False, True], ids=["sha256", "curve-hash"])
def test_a_signature_verifies_over_its_message_only(kind, curve_hash):
    key = PrivateKey.generate(kind)
    signature = key.sign(b"message", curve_hash=curve_hash)
    assert key.public_key.verifies(signature, b"message")
    assert not key.public_key.verifies(signature, b"messagf")
    assert not key.public_key.verifies(signature[:-1], b"message")
    assert not key.public_key.verifies(b"", b"message")
    assert not PrivateKey.generate(kind).public_key.verifies(signature, b"message")


def test_rsa_signs_as_pkcs1_and_verifies_pss_too(rsa_2048):
    key = PrivateKey.from_pem(pem(rsa_2048))
    signature = key.sign(b"message")
    rsa_2048.public_key().verify(signature, b"message", padding.PKCS1v15(), hashes.SHA256())
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    assert key.public_key.verifies(rsa_2048.sign(b"message", pss, hashes.SHA256()), b"message")
    assert not key.public_key.verifies(signature, b"other")
    assert key.public_key.kind == "rsa-2048"


@pytest.mark.parametrize(
    ("curve", "own_hash"),
    [(ec.SECP256R1(), hashes.SHA256()), (ec.SECP384R1(), hashes.SHA384())],
    ids=["p256", "p384"],
)
def test_which_hash_an_ec_key_signs_with(curve, own_hash):
    raw = ec.generate_private_key(curve)
    key = PrivateKey.from_pem(pem(raw))
    raw.public_key().verify(key.sign(b"m"), b"m", ec.ECDSA(hashes.SHA256()))
    raw.public_key().verify(key.sign(b"m", curve_hash=True), b"m", ec.ECDSA(own_hash))
    # What cosign signs with P-384.
    assert key.public_key.verifies(raw.sign(b"m", ec.ECDSA(own_hash)), b"m")
    assert not key.public_key.verifies(raw.sign(b"m", ec.ECDSA(hashes.SHA512())), b"m")


def test_ed25519ph_is_verified_too():
    raw = ed25519.Ed25519PrivateKey.generate()
    public = raw.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    seed = raw.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    state = bindings.crypto_sign_ed25519ph_state()
    bindings.crypto_sign_ed25519ph_update(state, b"message")
    signature = bindings.crypto_sign_ed25519ph_final_create(state, seed + public)
    key = PublicKey.from_pem(public_pem(raw))
    assert key.verifies(signature, b"message")
    assert not key.verifies(signature, b"other")


def test_the_two_hints():
    key = PrivateKey.generate().public_key
    der = load_pem_public_key(key.pem).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key.cosign_hint == base64.b64encode(hashlib.sha256(der).digest()).decode()
    assert key.pem.endswith(b"-----END PUBLIC KEY-----\n")
    assert key.oms_hint == hashlib.sha256(key.pem).hexdigest()


@pytest.mark.parametrize("kind", [*QUICK_KINDS, "rsa-3072"])
def test_every_kind_survives_every_file_form(kind):
    key = PrivateKey.generate(kind)
    assert key.public_key.kind == kind
    for data, password in (
        (key.to_pem(None), None),
        (key.to_pem(b"secret"), b"secret"),
        (key.to_cosign_pem(b""), b""),
    ):
        loaded = PrivateKey.from_pem(data, password)
        assert loaded.public_key == key.public_key
    assert PublicKey.from_pem(key.public_key.pem) == key.public_key
    assert hash(PublicKey.from_pem(key.public_key.pem)) == hash(key.public_key)


def test_what_can_be_generated():
    assert set(QUICK_KINDS) < set(keys.KINDS)
    assert keys.KINDS[0] == keys.DEFAULT_KIND == PrivateKey.generate().public_key.kind


def test_other_pem_labels_are_read(rsa_2048):
    raw = ec.generate_private_key(ec.SECP256R1())
    for key in (raw, rsa_2048):
        data = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        assert PrivateKey.from_pem(data).public_key.pem == public_pem(key)


REFUSED = {
    "another-curve": (lambda: pem(ec.generate_private_key(ec.SECP256K1())), "secp256k1"),
    "small-rsa": (lambda: pem(rsa.generate_private_key(65537, 1024)), "1024 bits"),
    "agreement-key": (lambda: pem(x25519.X25519PrivateKey.generate()), "not accepted"),
    "encrypted-without-password": (
        lambda: PrivateKey.generate().to_pem(b"x"),
        "MODELPACK_KEY_PASSWORD",
    ),
    "cosign-without-password": (
        lambda: PrivateKey.generate().to_cosign_pem(b"x"),
        "MODELPACK_KEY_PASSWORD",
    ),
}


@pytest.mark.parametrize(("make", "said"), REFUSED.values(), ids=REFUSED)
def test_private_keys_that_are_refused(make, said):
    with pytest.raises(UsageError, match=said):
        PrivateKey.from_pem(make(), None, "team.key")


@pytest.mark.parametrize("form", ["pkcs8", "cosign"])
def test_a_wrong_password_is_said_and_not_shown(form):
    key = PrivateKey.generate()
    data = key.to_pem(b"right") if form == "pkcs8" else key.to_cosign_pem(b"right")
    with pytest.raises(UsageError, match="password does not open") as caught:
        PrivateKey.from_pem(data, b"wr0ng-secret")
    assert "wr0ng" not in str(caught.value)


def test_nothing_secret_is_shown():
    key = PrivateKey.generate()
    numbers = key._key.private_numbers().private_value
    assert str(numbers) not in repr(key)
    assert "PrivateKey object" not in repr(key)


def test_public_key_files_that_are_refused():
    key = PrivateKey.generate()
    with pytest.raises(UsageError, match="is a private key"):
        PublicKey.from_pem(key.to_pem(None), "team.pub")
    with pytest.raises(FormatError, match="more than one PEM block"):
        PublicKey.from_pem(key.public_key.pem * 2)
    with pytest.raises(FormatError, match="larger than"):
        PublicKey.from_pem(b" " * (keys.MAX_KEY_FILE_BYTES + 1))
    with pytest.raises(FormatError, match=r"team\.pub is not a PEM public key"):
        PublicKey.from_pem(b"ssh-ed25519 AAAA", "team.pub")
    with pytest.raises(UsageError, match="is not a kind of key"):
        PrivateKey.generate("dsa")


def test_a_key_pair_is_written_once_and_closed_to_others(tmp_path):
    key = PrivateKey.generate()
    private, public = tmp_path / "team.key", tmp_path / "team.pub"
    mask = os.umask(0)
    try:
        keys.write_key_pair(key, private, public, b"secret")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    assert PrivateKey.from_pem(private.read_bytes(), b"secret").public_key == key.public_key
    assert PublicKey.from_pem(public.read_bytes()) == key.public_key
    before = private.read_bytes()
    with pytest.raises(UsageError, match="is not overwritten"):
        keys.write_key_pair(PrivateKey.generate(), private, tmp_path / "new.pub", b"")
    assert private.read_bytes() == before
    assert not (tmp_path / "new.pub").exists()


def test_a_key_is_not_written_through_a_link_or_beside_an_existing_public_key(tmp_path):
    key = PrivateKey.generate()
    (tmp_path / "link.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        keys.write_key_pair(key, tmp_path / "link.key", tmp_path / "a.pub", b"")
    (tmp_path / "b.pub").write_bytes(b"")
    with pytest.raises(UsageError):
        keys.write_key_pair(key, tmp_path / "b.key", tmp_path / "b.pub", b"")
    with pytest.raises(UsageError, match="cannot be written"):
        keys.write_key_pair(key, Path("/proc/none.key"), Path("/proc/none.pub"), b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.pub", "link.key"]


P256_PEM = PrivateKey.generate().to_pem(None)
PUBLIC_PEM = PrivateKey.from_pem(P256_PEM).public_key.pem


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.integers(0, len(P256_PEM)), st.booleans())
def test_any_bytes_give_a_key_or_an_error_of_ours(noise, position, public):
    base = PUBLIC_PEM if public else P256_PEM
    data = base[:position] + noise + base[position + len(noise) :]
    try:
        loaded = PublicKey.from_pem(data) if public else PrivateKey.from_pem(data, b"x")
    except ModelpackError:
        return
    assert loaded.pem if public else loaded.public_key.pem
