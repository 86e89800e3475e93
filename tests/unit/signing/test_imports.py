import subprocess
import sys

import pytest


def imported(code):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import modelpack", {"sigstore", "cryptography", "yaml", "nacl", "httpx"}),
        ("import modelpack.signing", {"sigstore", "cryptography", "yaml", "nacl"}),
        ("import modelpack.unsafe.scan", {"sigstore", "cryptography", "yaml", "nacl"}),
        (
            "import modelpack.signing.policyfile, modelpack.signing.oms",
            {"sigstore", "nacl", "requests", "pydantic"},
        ),
        ("import modelpack.signing.keyless", {"sigstore", "nacl", "requests", "pydantic", "tuf"}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_an_import_does_not_bring_along(code, absent):
    assert imported(code) & absent == set()
