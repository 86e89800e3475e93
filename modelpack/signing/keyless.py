"""Signing and verifying with a short-lived certificate instead of a key.

Owns every use of the ``sigstore`` package, its import (0.3 s, so only inside functions) and the
mapping of what it raises. Leaves out what is signed and what a verified payload must say:
``verify_dsse`` checks certificate, log, time and signature, but neither subject nor predicate.

Private deployments pass a client trust configuration (``--trust-config``); without one the public
instance's is fetched and updated through TUF.

    signer = SigstoreSigner(token, trust_config=Path("trust.json").read_bytes())
    raw = signer.sign(signature_statement(digest, name=""))
    SigstoreVerifier(trust_config).verify(raw, [IdentitySigner(identity=..., issuer=...)])
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cryptography import x509

from modelpack.errors import (
    AuthError,
    FormatError,
    ModelpackError,
    NetworkError,
    PolicyError,
    UsageError,
)
from modelpack.manifest import load_json
from modelpack.signing.verify import IdentitySigner

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig, TrustedRoot

# Where cosign looks, and where Tekton and plain Kubernetes pods project a service account token.
TOKEN_FILE = "/var/run/sigstore/cosign/oidc-token"  # noqa: S105  # a path, not a secret
# cosign's name for a token given in the environment; GitLab's id_tokens are usually called so too.
TOKEN_VARIABLE = "SIGSTORE_ID_TOKEN"  # noqa: S105
AUDIENCE = "sigstore"
# The public instance's configuration is under 20 KiB; one with many rotated keys stays far below.
MAX_TRUST_CONFIG_BYTES = 4 * 1024 * 1024
MAX_TOKEN_CHARACTERS = 64 * 1024

_TRUSTED_ROOT_PREFIX = "application/vnd.dev.sigstore.trustedroot"
# Fulcio certificate extensions (sigstore/fulcio, docs/oid-info.md): the issuer, old form and new.
_ISSUER_OIDS = (
    x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8"),
    x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1"),
)
_SHOWN = 300


class SigstoreSigner:
    """Signs statements in the name of an identity token; each signature has its own certificate."""

    def __init__(self, token: str, *, trust_config: bytes | None = None) -> None:
        self._token = token
        self._trust_config = trust_config

    def sign(self, statement: bytes) -> bytes:
        """Return the bundle: certificate, log entry, timestamps and the signed ``statement``.

        Every subject of the statement must have a name, if an empty one.

        Raises:
            AuthError: the token is expired, not for this audience, or refused by the authority.
            NetworkError: a service cannot be reached or failed.
            UsageError: the trust configuration is none, or lacks a service.
            PolicyError: what a service returned does not verify under the trust configuration.
        """
        with _mapped("signing without a key"):
            from sigstore.dsse import Statement
            from sigstore.models import InvalidBundle
            from sigstore.oidc import IdentityToken
            from sigstore.sign import SigningContext
            from sigstore.verify import Verifier

            identity = IdentityToken(self._token)
            with _usable_config():
                config = _client_config(self._trust_config)
                context = SigningContext.from_trust_config(config)
                verifier = Verifier(trusted_root=config.trusted_root)
            try:
                with context.signer(identity) as signer:
                    bundle = signer.sign_dsse(Statement(statement))
            except InvalidBundle as error:
                # The client goes on without a timestamp that it did not get.
                raise NetworkError(
                    f"the signing services gave no complete answer: {_shown(error)}; try again later"
                ) from error
            # It believes whatever they answer; what nobody could verify is found out here.
            verifier.verify_dsse(bundle, _Anyone())
            return bundle.to_json().encode()


class SigstoreVerifier:
    """Verifies bundles of certificates, offline once the trust configuration is there."""

    def __init__(self, trust_config: bytes | None = None) -> None:
        """Take a client trust configuration or a trusted root, as JSON; nothing is read yet."""
        self._trust_config = trust_config
        self._verifier: Any = None

    def verify(
        self, raw: bytes, signers: Sequence[IdentitySigner]
    ) -> tuple[IdentitySigner, str, bytes]:
        """Return who signed, the payload's type and its bytes, once everything around them holds.

        Raises:
            PolicyError: it does not hold, or somebody else signed; the message says who.
            FormatError: not a bundle of a certificate.
            UsageError: the trust configuration is none.
            NetworkError: the public trust root cannot be fetched.
        """
        with _mapped("the signature"):
            from sigstore.models import Bundle
            from sigstore.verify import Verifier
            from sigstore.verify.policy import Identity

            if self._verifier is None:
                with _usable_config():
                    self._verifier = Verifier(trusted_root=_trusted_root(self._trust_config))
            bundle = Bundle.from_json(_spelled_out(raw))
            # 1. Which signer the certificate claims to be. The claim is verified in step 2; asking
            #    first spares verifying the chain once for every signer.
            certificate = bundle.signing_certificate
            signer = _claimed(certificate, signers)
            # 2. Certificate, issuance log, transparency log, time, identity and signature hold.
            policy = Identity(identity=signer.identity, issuer=signer.issuer)
            payload_type, payload = self._verifier.verify_dsse(bundle, policy)
            return signer, str(payload_type), bytes(payload)


class _Anyone:
    """The policy of a signer about its own bundle: whoever the authority says it is."""

    def verify(self, certificate: x509.Certificate) -> None:
        """Accept the certificate's identity, whichever it is."""


def _claimed(certificate: x509.Certificate, signers: Sequence[IdentitySigner]) -> IdentitySigner:
    from sigstore.errors import VerificationError
    from sigstore.verify.policy import Identity

    for signer in signers:
        try:
            Identity(identity=signer.identity, issuer=signer.issuer).verify(certificate)
        except VerificationError:
            continue
        return signer
    wanted = ", ".join(f"{signer.identity} (issuer {signer.issuer})" for signer in signers[:5])
    raise PolicyError(f"signed by {certificate_identity(certificate)}, not by {wanted}")


def certificate_identity(certificate: x509.Certificate) -> str:
    """Return ``IDENTITY (issuer ISSUER)`` for messages; nothing is verified."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        issuer = next((_text(extension.value) for extension in _issuers(certificate)), "unknown")
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return "a certificate without an identity"
    values = [
        str(value)
        for kind in (x509.UniformResourceIdentifier, x509.RFC822Name, x509.DNSName)
        for value in names.get_values_for_type(kind)
    ]
    return _shown(f"{' '.join(values)} (issuer {issuer})")


def find_token(
    environ: Mapping[str, str],
    read_file: Callable[[str], str | None],
    detect: Callable[[], str | None] | None = None,
) -> str | None:
    """Return an identity token from around this process, or None.

    In this order: the variable ``SIGSTORE_ID_TOKEN``, the projected token file that Tekton and
    Kubernetes use, and what the CI system at hand offers (``detect_ci_token``). ``read_file``
    returns None for a file that is not there.

    Raises:
        AuthError: there is a token, but an empty or absurdly long one; or the CI system has one
            and does not give it.
    """
    found: tuple[tuple[str, str | None], ...] = (
        (TOKEN_VARIABLE, environ.get(TOKEN_VARIABLE)),
        (TOKEN_FILE, read_file(TOKEN_FILE)),
    )
    for where, token in found:
        if token is None:
            continue
        stripped = token.strip()
        if not stripped or len(stripped) > MAX_TOKEN_CHARACTERS:
            raise AuthError(f"{where} does not hold an identity token")
        return stripped
    return (detect or detect_ci_token)()


def detect_ci_token() -> str | None:
    """Ask GitHub, Google, Buildkite, GitLab or CircleCI for a token, wherever this runs.

    Raises:
        AuthError: it runs in one of them, which does not give a token.
    """
    with _mapped("asking the CI system for an identity token"):
        from sigstore.oidc import detect_credential

        return detect_credential(AUDIENCE)


def _spelled_out(raw: bytes) -> str:
    """Return a bundle with the members that writers may leave out of the log's first entry.

    In the JSON of protocol buffers a number that is 0 and a list that is empty need not be written,
    and cosign does not; sigstore's models want both.
    """
    value = load_json(raw, "the bundle")
    material = value.get("verificationMaterial") if isinstance(value, dict) else None
    entries = material.get("tlogEntries") if isinstance(material, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        proof = entry.get("inclusionProof") if isinstance(entry, dict) else None
        if isinstance(proof, dict):
            entry.setdefault("logIndex", "0")
            proof.setdefault("logIndex", "0")
            proof.setdefault("hashes", [])
    return json.dumps(value)


def _client_config(raw: bytes | None) -> "ClientTrustConfig":
    from sigstore.models import ClientTrustConfig

    if raw is None:
        return ClientTrustConfig.production()
    return ClientTrustConfig.from_json(_config_text(raw))


def _trusted_root(raw: bytes | None) -> "TrustedRoot":
    if raw is None or _TRUSTED_ROOT_PREFIX not in _media_type(raw):
        return _client_config(raw).trusted_root
    from sigstore.models import TrustedRoot
    from sigstore_models.trustroot.v1 import TrustedRoot as Inner

    return TrustedRoot(Inner.from_json(_config_text(raw)))


def _config_text(raw: bytes) -> str:
    if len(raw) > MAX_TRUST_CONFIG_BYTES:
        raise UsageError(f"the trust configuration is larger than {MAX_TRUST_CONFIG_BYTES} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise UsageError("the trust configuration is not UTF-8") from error


def _media_type(raw: bytes) -> str:
    try:
        value = json.loads(_config_text(raw))
    except (ValueError, RecursionError) as error:
        raise UsageError("the trust configuration is not JSON") from error
    return str(value.get("mediaType", "")) if isinstance(value, dict) else ""


@contextmanager
def _usable_config() -> Iterator[None]:
    """Blame the trust configuration, not the signature, for what fails while reading it."""
    from sigstore import errors

    try:
        yield
    except (errors.NetworkError, errors.TUFError):
        raise
    except (errors.Error, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"the trust configuration cannot be used: {_shown(error)}") from error


@contextmanager
def _mapped(what: str) -> Iterator[None]:
    """Turn what sigstore and the libraries under it raise into this project's errors.

    Whatever is not known refuses: an exception while verifying must never read as "verified".
    """
    import requests
    from sigstore import errors
    from sigstore.models import InvalidBundle
    from sigstore.oidc import IdentityError

    try:
        yield
    except ModelpackError:
        raise
    except IdentityError as error:
        raise AuthError(f"{what}: the identity token is refused: {_shown(error)}") from error
    except (errors.NetworkError, errors.TUFError) as error:
        raise NetworkError(f"{what}: {_shown(error)}; try again later") from error
    except requests.RequestException as error:
        raise NetworkError(f"{what}: a service cannot be reached; try again later") from error
    except InvalidBundle as error:
        raise FormatError(f"{what}: {_shown(error)}") from error
    except errors.Error as error:
        raise PolicyError(f"{what} does not hold: {_shown(error)}") from error
    except Exception as error:
        raise _unlisted(error, what) from error


def _unlisted(error: Exception, what: str) -> ModelpackError:
    """Map an exception that sigstore raises but does not export.

    It is told by its class's name, since importing private modules would break with any release,
    while a renamed class only makes a message vaguer.
    """
    name = type(error).__name__
    if name in {"ExpiredIdentity", "ExpiredCertificate"}:
        return AuthError(f"{what}: the identity token has expired; get a new one")
    if name in {"FulcioClientError", "RekorClientError"}:
        response = getattr(error.__cause__ or error.__context__, "response", None)
        status = getattr(response, "status_code", None)
        service = "the certificate authority" if name.startswith("Fulcio") else "the log"
        if status is not None and 400 <= status < 500:
            return AuthError(f"{what}: {service} refused with status {status}")
        return NetworkError(f"{what}: {service} failed: {_shown(error)}; try again later")
    return PolicyError(f"{what} cannot be verified: {name}")


def _shown(text: object) -> str:
    return ascii(" ".join(str(text).split())[:_SHOWN]).strip("'\"")


def _issuers(certificate: x509.Certificate) -> Iterator[x509.Extension[Any]]:
    for oid in _ISSUER_OIDS:
        for extension in certificate.extensions:
            if extension.oid == oid:
                yield extension


def _text(value: Any) -> str:
    raw = bytes(value.value)
    # The new form wraps the text in a DER UTF8String; its length fits in one byte for any issuer
    # that is shown whole.
    if raw[:1] == b"\x0c" and len(raw) > 1:
        raw = raw[2:] if raw[1] < 0x80 else raw[3:]
    return raw.decode("utf-8", "replace")
