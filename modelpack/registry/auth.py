"""Being let in: which Authorization header a request carries, and how a refused one is renewed.

Owns the state machine of one repository's authentication, shared by every thread of both planes,
and the token requests. Leaves out the header grammar (``challenges.py``), the safety of realms
(``realms.py``) and where logins are stored (``credentials.py``).

A request first asks ``authorization``; on a 401 it hands the challenge and the header that failed
to ``renew`` and tries again with what that returns. One thread renews while the others wait, and
a thread whose header was replaced meanwhile gets the new one without asking again.
"""

import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from modelpack.errors import AuthError, FormatError, NetworkError
from modelpack.manifest import load_json
from modelpack.registry.addresses import Origin, without_query
from modelpack.registry.challenges import Challenge, parse_challenges
from modelpack.registry.credentials import Credentials, find_credentials
from modelpack.registry.errors import RETRIED_STATUSES, clean, login_hint
from modelpack.registry.options import ConnectionOptions
from modelpack.registry.realms import check_realm
from modelpack.registry.retry import Backoff, retry_after

PULL = "pull"
PUSH = "pull,push"
DELETE = "pull,push,delete"

# Tokens with hundreds of claims are some 10 KiB; one must fit a request header.
MAX_TOKEN_ANSWER = 256 * 1024
MAX_TOKEN = 32 * 1024
# distribution, "Token Authentication": without expires_in a token is good for a minute.
_DEFAULT_LIFETIME = 60.0
# A token is replaced this much before it ends, so that it still holds when the request arrives.
_EARLY = 10.0
_EARLY_SHARE = 0.2
_MAX_SCOPES = 16


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What a token service sent back."""

    status: int
    body: bytes
    retry_after: str | None = None


class TokenSender(Protocol):
    """Sends one request to a token service: no redirects, bounded body and time."""

    def __call__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        form: Mapping[str, str] | None,
        max_bytes: int,
    ) -> TokenAnswer:
        """Send the request.

        Raises:
            ConnectionError: it did not get through; trying again may help.
        """


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    renew_at: float


class Authenticator:
    """The authentication of one client with one repository; thread-safe."""

    def __init__(
        self,
        *,
        registry: str,
        repository: str | None,
        endpoint: Origin,
        options: ConnectionOptions,
        send: TokenSender,
        backoff: Callable[[str], Backoff],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._repository = repository
        self._endpoint = endpoint
        self._options = options
        self._send = send
        self._backoff = backoff
        self._clock = clock
        # Held during token requests on purpose: whoever waits wants that token.
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._headers: dict[tuple[str, ...], _Token] = {}
        self._credentials: Credentials | None = None
        self._searched = False

    @property
    def logged_in(self) -> bool:
        """Whether credentials are in use, for the advice in an error."""
        return self._credentials is not None

    def authorization(self, actions: str = PULL, *, also: str | None = None) -> str | None:
        """Return the Authorization header for a request, or None to try without.

        ``actions`` are those on this repository; ``also`` is one more scope, as mounting from
        another repository needs. A token about to expire is renewed first.

        Raises: as ``renew``.
        """
        key = self._scopes(actions, also)
        token = self._headers.get(key)
        if token and self._clock() < token.renew_at:
            return token.header
        if self._challenge is None:
            return None
        with self._lock:
            token = self._headers.get(key)
            if token and self._clock() < token.renew_at:
                return token.header
            return self._renewed(self._challenge, key)

    def renew(
        self,
        challenge: str,
        failed: str | None,
        actions: str = PULL,
        *,
        also: str | None = None,
    ) -> str:
        """Return another Authorization header after a 401.

        ``challenge`` is the ``WWW-Authenticate`` of the answer, several joined by commas;
        ``failed`` is the header that was refused.

        Raises:
            AuthError: no credentials, or they were refused.
            UnsafeAddressError: the challenge names a realm that must not be asked.
            NetworkError: the token service gave up.
        """
        key = self._scopes(actions, also)
        with self._lock:
            token = self._headers.get(key)
            if token and token.header != failed and self._clock() < token.renew_at:
                return token.header
            chosen = self._choose(challenge)
            if chosen.scheme == "basic" and token and token.header == failed:
                raise AuthError(
                    f"{self._registry} refused the credentials; "
                    f"{login_hint(self._registry, logged_in=True)}"
                )
            header = self._renewed(chosen, key)
            self._challenge = chosen
            return header

    def _scopes(self, actions: str, also: str | None) -> tuple[str, ...]:
        own = (f"repository:{self._repository}:{actions}",) if self._repository else ()
        return own if also is None else (*own, also)

    def _choose(self, header: str) -> Challenge:
        try:
            challenges = parse_challenges(header)
        except FormatError as error:
            raise AuthError(f"{self._registry} asks for authentication oddly: {error}") from error
        for scheme in ("bearer", "basic"):
            for challenge in challenges:
                if challenge.scheme == scheme:
                    return challenge
        known = ", ".join(clean(challenge.scheme)[:20] for challenge in challenges[:5])
        raise AuthError(
            f"{self._registry} asks for authentication by {known or 'nothing named'}; "
            "modelpack knows Basic and Bearer"
        )

    def _renewed(self, challenge: Challenge, key: tuple[str, ...]) -> str:
        token = self._basic() if challenge.scheme == "basic" else self._bearer(challenge, key)
        self._headers[key] = token
        return token.header

    def _basic(self) -> _Token:
        credentials = self._login()
        if credentials is None or credentials.identity_token is not None:
            raise AuthError(
                f"{self._registry} wants a user name and password; "
                f"{login_hint(self._registry, logged_in=False)}"
            )
        return _Token(f"Basic {credentials.basic}", renew_at=float("inf"))

    def _bearer(self, challenge: Challenge, key: tuple[str, ...]) -> _Token:
        # 1. The realm must be one that may be asked at all.
        realm = challenge.parameters.get("realm")
        if not realm:
            raise AuthError(f"{self._registry} asks for a token without saying where to get it")
        may_log_in = check_realm(realm, self._endpoint, trusted=self._options.token_hosts)
        # 2. Credentials only go where the realm's host allows it.
        credentials = self._login() if may_log_in else None
        # 3. Ask, in bounded time, following no redirects.
        exchange = _Exchange(self._send)
        backoff = self._backoff(f"token service {without_query(realm)}")
        while True:
            started = self._clock()
            try:
                value = self._ask(exchange, realm, challenge, key, credentials)
            except ConnectionError as error:
                backoff.wait(str(error))
                continue
            if exchange.answer.status in RETRIED_STATUSES:
                backoff.wait(
                    f"HTTP status {exchange.answer.status}",
                    retry_after(exchange.answer.retry_after, now=time.time()),
                )
                continue
            break
        # 4. The answer must be a token that fits a header.
        if exchange.answer.status != 200:
            raise self._refusal(realm, exchange.answer, credentials, may_log_in=may_log_in)
        header = f"Bearer {_checked_token(value, realm)}"
        lifetime = exchange.lifetime()
        return _Token(header, started + lifetime - min(_EARLY, lifetime * _EARLY_SHARE))

    def _ask(
        self,
        exchange: "_Exchange",
        realm: str,
        challenge: Challenge,
        key: tuple[str, ...],
        credentials: Credentials | None,
    ) -> object:
        service = challenge.parameters.get("service")
        scopes = merged_scopes(key, challenge.parameters.get("scope", ""))
        if credentials is not None and credentials.identity_token is not None:
            return exchange.refresh(realm, service, scopes, credentials.identity_token)
        from modelpack.registry._oras import request_token  # noqa: PLC0415  (oras imports requests)

        return request_token(
            exchange, realm=realm, service=service, scopes=scopes, credentials=credentials
        )

    def _refusal(
        self,
        realm: str,
        answer: TokenAnswer,
        credentials: Credentials | None,
        *,
        may_log_in: bool,
    ) -> Exception:
        what = f"token service {without_query(realm)} of {self._registry}"
        if 300 <= answer.status < 400:
            return NetworkError(f"{what} redirects, which is not followed")
        if 400 <= answer.status < 500 and not may_log_in and self._login() is not None:
            return AuthError(
                f"{what} is on another site, so that the login was not sent there, "
                "and it gives no token without one"
            )
        gave = f"{what} gave no token (HTTP status {answer.status})"
        if 400 <= answer.status < 500:
            hint = login_hint(self._registry, logged_in=credentials is not None)
            return AuthError(f"{gave}; {hint}")
        return NetworkError(f"{gave}; try again later")

    def _login(self) -> Credentials | None:
        if not self._searched:
            self._credentials = self._options.credentials or find_credentials(
                self._registry, self._repository, only=self._options.auth_file
            )
            self._searched = True
        return self._credentials


class _Exchange:
    """Stands in for the ``requests`` session of oras-py's token code, over our own sender."""

    def __init__(self, send: TokenSender) -> None:
        self._send = send
        self.answer = TokenAnswer(0, b"")

    def get(self, url: str, **parameters: Any) -> "_Exchange":
        """Send a GET request; the rest of ``parameters`` is about TLS and is ours to decide."""
        return self.request("GET", url, **parameters)

    def request(self, method: str, url: str, **parameters: Any) -> "_Exchange":
        """Send a request."""
        query = urllib.parse.urlencode(parameters.get("params") or {}, doseq=True)
        if query:
            url = f"{url}{'&' if '?' in url else '?'}{query}"
        headers = parameters.get("headers") or {}
        kept = {name: headers[name] for name in headers if name in {"Authorization", "Accept"}}
        self.answer = self._send(method, url, headers=kept, form=None, max_bytes=MAX_TOKEN_ANSWER)
        return self

    def refresh(
        self, realm: str, service: str | None, scopes: Sequence[str], identity_token: str
    ) -> object:
        """Trade an identity token for an access token (distribution, "OAuth2 Token")."""
        form = {
            "grant_type": "refresh_token",
            "client_id": "modelpack",
            "service": service or "",
            "scope": " ".join(scopes),
            "refresh_token": identity_token,
        }
        self.answer = self._send("POST", realm, headers={}, form=form, max_bytes=MAX_TOKEN_ANSWER)
        document = self.json() if self.answer.status == 200 else {}
        return document.get("access_token") or document.get("token")

    @property
    def status_code(self) -> int:
        """The answer's status."""
        return self.answer.status

    @property
    def text(self) -> str:
        """Nothing: oras-py logs it, and it may hold a secret."""
        return ""

    def json(self) -> dict[str, Any]:
        """Return the answer's JSON object.

        Raises:
            FormatError: it is something else.
        """
        value = load_json(self.answer.body, "answer of the token service")
        if not isinstance(value, dict):
            raise FormatError("answer of the token service is not a JSON object")
        return value

    def lifetime(self) -> float:
        """Return for how many seconds the token is good."""
        value = self.json().get("expires_in")
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            return _DEFAULT_LIFETIME
        return min(float(value), 24 * 3600.0)


def merged_scopes(own: Sequence[str], asked: str) -> list[str]:
    """Return our scopes and those of a challenge, without the repetitions.

    A registry behind a proxy may know the repository by another name, so its scopes go along; for
    the same resource, actions are united.
    """
    actions: dict[str, list[str]] = {}
    for scope in [*own, *asked.split()[:_MAX_SCOPES]]:
        resource, colon, wanted = scope.rpartition(":")
        if not colon:
            resource, wanted = scope, ""
        known = actions.setdefault(resource, [])
        known += [action for action in wanted.split(",") if action and action not in known]
    return [
        f"{resource}:{','.join(wanted)}" if wanted else resource
        for resource, wanted in actions.items()
    ]


def _checked_token(value: object, realm: str) -> str:
    if not isinstance(value, str) or not value:
        raise AuthError(f"token service {without_query(realm)} gave an answer without a token")
    if len(value) > MAX_TOKEN or not value.isascii() or not value.isprintable() or " " in value:
        raise AuthError(f"token service {without_query(realm)} gave a token that is none")
    return value
