"""Who may do what: Basic, and Bearer with tokens that expire.

Owns challenges, tokens and scopes (the Docker Registry token protocol, GET and OAuth2 POST).
Leaves out where the token endpoint listens: every registry with Bearer answers at ``/token``, and
a ``TokenHost`` does so on another address.

    auth = BearerAuth(users={"ada": "secret"}, lifetime=0.5, anonymous={"pull"})
    FaultRegistry(auth=auth)
    auth.tokens_issued[-1].scopes        # {"team/model": {"pull"}}
"""

import base64
import binascii
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qs

from tests.support.faultregistry.routes import is_name
from tests.support.faultregistry.wire import (
    Headers,
    Refusal,
    Request,
    Response,
    json_response,
    violation,
)

ACTIONS = frozenset({"pull", "push", "delete"})
_MAX_FORM_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """What a request needs: ``repository:NAME:ACTION,ACTION``."""

    repo: str
    actions: frozenset[str]

    @classmethod
    def parse(cls, text: str) -> "Scope":
        """Read a scope as a client sends it.

        Raises:
            Refusal: it is none; a violation.
        """
        kind, _, rest = text.partition(":")
        repo, _, actions = rest.rpartition(":")
        wanted = frozenset(actions.split(","))
        if kind != "repository" or not is_name(repo) or not wanted <= ACTIONS:
            raise violation("UNSUPPORTED", f"not a scope: {text!r}")
        return cls(repo=repo, actions=wanted)

    def __str__(self) -> str:
        order = [name for name in ("pull", "push", "delete") if name in self.actions]
        return f"repository:{self.repo}:{','.join(order)}"


class Auth(Protocol):
    """A gate."""

    def check(self, request: Request, scopes: Collection[Scope], server: str) -> None:
        """Let a request pass that may do all this; ``server`` is the URL it came to.

        Raises:
            Refusal: 401 with a challenge.
        """


class BasicAuth:
    """User names and passwords, with every request."""

    def __init__(self, users: Mapping[str, str], *, realm: str = "fault registry"):
        """``users`` maps names to passwords."""
        self.users = dict(users)
        self.realm = realm

    def check(self, request: Request, scopes: Collection[Scope], server: str) -> None:
        """Let a known user pass."""
        if user_of(request.headers.get("authorization"), self.users) is None:
            challenge = {"WWW-Authenticate": f'Basic realm="{self.realm}"'}
            raise Refusal(401, "UNAUTHORIZED", "authentication required", headers=challenge)


@dataclass(frozen=True, kw_only=True, slots=True)
class IssuedToken:
    """One token."""

    token: str
    at: float
    expires_at: float
    """Both are times of ``time.monotonic()``."""
    user: str | None
    """None: anonymous."""
    scopes: Mapping[str, frozenset[str]]
    """What was granted, which may be less than what was asked for: actions by repository."""


class BearerAuth:
    """Tokens for scopes, from an endpoint that may be elsewhere. Thread-safe."""

    def __init__(
        self,
        *,
        users: Mapping[str, str] | None = None,
        lifetime: float = 300,
        anonymous: Collection[str] = (),
        service: str = "fault-registry",
        realm: str | None = None,
        challenge: str | None = None,
        allow: Callable[[str | None, str, str], bool] | None = None,
        oauth2: bool = True,
        announce_expiry: bool = True,
        refresh_tokens: Mapping[str, str] | None = None,
    ):
        """Set the rules.

        Args:
            users: Names and passwords that the token endpoint knows.
            lifetime: Seconds that a token is good for, to the fraction.
            anonymous: The actions that a token without credentials is given.
            service: What the challenge names and a client must repeat.
            realm: The URL that challenges name, whatever it is; None is the registry's own
                ``/token``, or that of the ``TokenHost`` that this was given to.
            challenge: The whole WWW-Authenticate header, to send something broken or hostile.
            allow: ``(user, repository, action)`` to whether that is granted; without it a known
                user may do all.
            oauth2: Whether POST works; if not it is answered 405.
            announce_expiry: Whether answers say ``expires_in``.
            refresh_tokens: Identity tokens and the users they stand for.
        """
        self.users = dict(users or {})
        self.lifetime = lifetime
        self.anonymous = frozenset(anonymous)
        self.service = service
        self.realm = realm
        self.challenge = challenge
        self.oauth2 = oauth2
        self.announce_expiry = announce_expiry
        self.refresh_tokens = dict(refresh_tokens or {})
        self._allow = allow or (lambda user, _, action: bool(user) or action in self.anonymous)
        self._lock = threading.Lock()
        self._tokens: dict[str, IssuedToken] = {}
        self._expired_before = 0.0

    @property
    def tokens_issued(self) -> list[IssuedToken]:
        """Every token so far, in order."""
        with self._lock:
            return list(self._tokens.values())

    def expire_tokens(self) -> None:
        """Make every token so far worthless."""
        self._expired_before = time.monotonic()

    def issue(self, user: str | None, *scopes: str) -> str:
        """Return a token for these scopes, less what the user may not do."""
        now = time.monotonic()
        granted: dict[str, frozenset[str]] = {}
        for scope in map(Scope.parse, scopes):
            allowed = {one for one in scope.actions if self._allow(user, scope.repo, one)}
            granted[scope.repo] = granted.get(scope.repo, frozenset()) | allowed
        issued = IssuedToken(
            token=secrets.token_urlsafe(24),
            at=now,
            expires_at=now + self.lifetime,
            user=user,
            scopes=granted,
        )
        with self._lock:
            self._tokens[issued.token] = issued
        return issued.token

    def check(self, request: Request, scopes: Collection[Scope], server: str) -> None:
        """Let a request pass whose token is good, fresh and wide enough."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        with self._lock:
            token = self._tokens.get(value) if scheme.lower() == "bearer" else None
        if scheme.lower() != "bearer":
            problem = None
        elif token is None or not self._is_fresh(token):
            problem = "invalid_token"
        elif any(scope.actions - token.scopes.get(scope.repo, frozenset()) for scope in scopes):
            problem = "insufficient_scope"
        else:
            return
        challenge = self.challenge or self._challenge(scopes, server, problem)
        raise Refusal(
            401,
            "UNAUTHORIZED",
            problem or "authentication required",
            headers={"WWW-Authenticate": challenge},
        )

    def _is_fresh(self, token: IssuedToken) -> bool:
        return time.monotonic() < token.expires_at and token.at >= self._expired_before

    def _challenge(self, scopes: Collection[Scope], server: str, problem: str | None) -> str:
        fields = {"realm": self.realm or f"{server}/token", "service": self.service}
        if scopes:
            fields["scope"] = " ".join(str(scope) for scope in scopes)
        if problem:
            fields["error"] = problem
        return "Bearer " + ",".join(f'{name}="{value}"' for name, value in fields.items())

    def answer(self, request: Request) -> Response:
        """Answer at the token endpoint.

        Raises:
            Refusal: unknown credentials, or a request that is none of the protocol's.
        """
        if request.method == "GET":
            return self._answer_get(request)
        if request.method == "POST" and self.oauth2:
            return self._answer_post(request)
        raise Refusal(405, "UNSUPPORTED", f"no {request.method} here")

    def _answer_get(self, request: Request) -> Response:
        request.allow_query("service", "scope", "account", "client_id", "offline_token")
        self._check_service(request.argument("service"))
        authorization = request.headers.get("authorization")
        if authorization is not None and not authorization.lower().startswith("basic "):
            raise violation("UNSUPPORTED", "the token endpoint takes Basic credentials only")
        user = user_of(authorization, self.users)
        if user is None and (authorization is not None or not self.anonymous):
            raise _unknown_user()
        scopes = [one for text in request.query.get("scope", []) for one in text.split()]
        return self._granted(user, scopes)

    def _answer_post(self, request: Request) -> Response:
        request.allow_query()
        if request.headers.get("content-type") != "application/x-www-form-urlencoded":
            raise violation("UNSUPPORTED", "a token POST whose body is not a form")
        form = {
            name: values[-1]
            for name, values in parse_qs(request.body.read(_MAX_FORM_BYTES).decode()).items()
        }
        self._check_service(form.get("service"))
        if "client_id" not in form:
            raise violation("UNSUPPORTED", "a token POST without client_id")
        match form.get("grant_type"):
            case "password":
                name = form.get("username", "")
                user = name if self.users.get(name) == form.get("password", "") else None
            case "refresh_token":
                user = self.refresh_tokens.get(form.get("refresh_token", ""))
            case other:
                raise violation("UNSUPPORTED", f"not a grant_type: {other!r}")
        if user is None:
            raise _unknown_user()
        return self._granted(user, form.get("scope", "").split())

    def _check_service(self, service: str | None) -> None:
        if service != self.service:
            raise violation("UNSUPPORTED", f"a token for the service {service!r}")

    def _granted(self, user: str | None, scopes: Collection[str]) -> Response:
        token = self.issue(user, *scopes)
        value: dict[str, object] = {"token": token, "access_token": token}
        if self.announce_expiry:
            value["expires_in"] = int(self.lifetime)
        return json_response(200, value)


def user_of(authorization: str | None, users: Mapping[str, str]) -> str | None:
    """Return the user whose Basic credentials these are, or None."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return name if name in users and users[name] == password else None


def needed_scopes(request: Request) -> list[Scope]:
    """Return what a request to a registry needs."""
    route = request.route
    if route.repo is None:
        return []
    if request.method in ("GET", "HEAD") and route.kind not in ("upload", "uploads"):
        actions = {"pull"}
    elif request.method == "DELETE" and route.kind != "upload":
        actions = {"delete"}
    else:
        actions = {"pull", "push"}
    scopes = [Scope(repo=route.repo, actions=frozenset(actions))]
    source = request.argument("from")
    if source is not None and source != route.repo:
        scopes.append(Scope(repo=source, actions=frozenset({"pull"})))
    return scopes


def _unknown_user() -> Refusal:
    challenge = Headers([("WWW-Authenticate", 'Basic realm="tokens"')])
    return Refusal(401, "UNAUTHORIZED", "unknown user or password", headers=challenge)
