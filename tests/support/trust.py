"""The command line with keys and a place for records of its own, and what cosign says of a model.

signer = TrustCommand(tmp_path)
private, public = signer.key_pair("team")
signer.json("push", model, reference, "--sign", "--key", private)
"""

from pathlib import Path

from tests.support import programs
from tests.support.command import Command

PASSWORD = "correct horse"
OFFLINE = ("--insecure-ignore-tlog=true", "--allow-http-registry")


class TrustCommand(Command):
    """``modelpack`` in a home without policies and records, with a password for its keys."""

    def __init__(self, directory: Path, env: dict[str, str] | None = None):
        home = directory / "home"
        own = {
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_STATE_HOME": str(home / "state"),
            "MODELPACK_KEY_PASSWORD": PASSWORD,
            "COLUMNS": "200",
        }
        super().__init__(home, {**own, **(env or {})})
        for name in (
            "MODELPACK_POLICY",
            "COSIGN_PASSWORD",
            "SIGSTORE_ID_TOKEN",
            "SOURCE_DATE_EPOCH",
        ):
            if name not in (env or {}):
                self.env.pop(name, None)
        self.directory = directory

    def key_pair(self, name: str, kind: str = "ec") -> tuple[Path, Path]:
        """Make a key pair and return the paths of its private and public key."""
        prefix = self.directory / name
        self.json("keygen", "--type", kind, "--output", prefix)
        return prefix.with_name(f"{name}.key"), prefix.with_name(f"{name}.pub")

    def refuses(self, code: int, *args: str | Path) -> str:
        """Run a command without ``--quiet`` that must end with this status; return its last line."""
        done = self.run(*args)
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}{done.stderr}"
        line = done.stderr.splitlines()[-1]
        assert line.startswith("modelpack: "), done.stderr
        return line

    def policy(self, text: str, name: str = "policy.yaml") -> Path:
        """Write a policy file and return its path."""
        path = self.directory / name
        path.write_text(text)
        return path


def cosign(*args: str | Path, check: bool = True):
    """Run cosign with the password of the tests' keys."""
    return programs.run("cosign", *args, check=check, env={"COSIGN_PASSWORD": PASSWORD})


def cosign_verifies(reference: str, public: Path, *options: str) -> bool:
    """Tell whether cosign accepts the signature of a manifest."""
    new = () if any("new-bundle" in option for option in options) else ("--new-bundle-format=true",)
    done = cosign("verify", "--key", public, *OFFLINE, *new, *options, reference, check=False)
    return done.returncode == 0
