"""Every error that modelpack raises on purpose.

```text
ModelpackError            1  anything else
├── UsageError            2  the call itself is wrong: bad reference, bad option, bad config
├── NotFoundError         3  no such repository, tag, manifest, blob, file
├── AuthError             4  the registry wants (other) credentials, or denies this action
├── IntegrityError        5  bytes are not what they should be
│   ├── FormatError       5  bytes are well transported but are not what they claim to be
│   └── ProtocolError     5  a server answered what the protocol forbids
├── PolicyError           6  the trust policy refused
├── NetworkError          7  network or server gave up
│   └── TransientError    7  worth another try, which the engine makes within its bounds
├── SpaceError            8  no space or quota
└── InterruptedTransferError 130  the user stopped it; running again goes on
```

Only the command line turns an error into an exit status; the library raises. A message is one line
that says what, which reference or file, and what to do next. Messages never hold credentials or
query strings.
"""


class ModelpackError(Exception):
    """The root of the tree; its ``exit_code`` is what the command line exits with."""

    exit_code = 1


class UsageError(ModelpackError):
    """The call itself is wrong: a malformed reference, option or configuration file."""

    exit_code = 2


class NotFoundError(ModelpackError):
    """What was named does not exist."""

    exit_code = 3


class AuthError(ModelpackError):
    """The registry asks for credentials, or refuses this action to the ones it was given."""

    exit_code = 4


class IntegrityError(ModelpackError):
    """Bytes differ from what their digest, length or index promises."""

    exit_code = 5


class FormatError(IntegrityError):
    """Bytes that are not a valid instance of the format they claim to be."""


class ProtocolError(IntegrityError):
    """A server answered what the protocol forbids, so nothing it says can be relied on."""


class PolicyError(ModelpackError):
    """The trust policy refused."""

    exit_code = 6


class NetworkError(ModelpackError):
    """The network or the server gave up, after the bounded retries."""

    exit_code = 7


class TransientError(NetworkError):
    """A request failed in a way that another try may not."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the server asked to wait, if it did."""

    @property
    def is_throttle(self) -> bool:
        """Whether the server asked for fewer requests."""
        return self.retry_after is not None


class SpaceError(ModelpackError):
    """No space left, or a quota is exhausted."""

    exit_code = 8


class InterruptedTransferError(ModelpackError):
    """The user stopped the operation; running the same command again continues it."""

    exit_code = 130
