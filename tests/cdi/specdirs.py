"""Small trees of spec directories, written compactly."""

from cdi.files import render
from cdi.parse import syntax_of
from cdi.spec import ContainerEdits, Device, Spec


def spec_of(text):
    """Return a spec from ``vendor/class=device,device`` with telling environment variables."""
    kind, _, names = text.partition("=")
    return Spec(
        cdi_version="0.5.0",
        kind=kind,
        container_edits=ContainerEdits(env=(f"SPEC_{kind}=1",)),
        devices=tuple(
            Device(name=name, container_edits=ContainerEdits(env=(f"DEVICE_{kind}_{name}=1",)))
            for name in names.split(",")
        ),
    )


def tree(root, content):
    """Write spec files below ``root`` and return its first-level directories in order.

    A value is a device list as in :func:`spec_of`, a spec, or else the file's text.
    """
    for name, value in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        is_list = isinstance(value, str) and "/" in value and "=" in value
        spec = spec_of(value) if is_list else value
        path.write_text(render(spec, syntax_of(path)) if isinstance(spec, Spec) else spec)
        path.chmod(0o644)
    return tuple(sorted({root / name.split("/")[0] for name in content}))
