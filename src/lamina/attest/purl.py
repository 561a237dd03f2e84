"""Images as package URLs (purl-spec: `pkg:docker/namespace/name@tag?platform=os%2Farch`). Pure."""

from __future__ import annotations

from urllib.parse import quote

from lamina.oci.platform import Platform
from lamina.oci.reference import Reference


def image_purl(name: str, platform: Platform | None = None, *, kind: str = "docker", **qualifiers: str) -> str:
    """Return the package URL of an image reference.

    Args:
        kind: the purl type: `docker` for what registries serve, `oci` for what lies in a layout.
        qualifiers: further ones, such as `ref_type="blob"`.

    Raises:
        InputError: `name` is no reference.
    """
    reference = Reference.parse(name, default_tag="")
    found = dict(qualifiers)
    if reference.digest is not None:
        found["digest"] = str(reference.digest)
    version = reference.tag or ("latest" if reference.digest is None else "")
    if platform is not None:
        found["platform"] = str(platform)
    bare = Reference(reference.registry, reference.repository).familiar()
    path = "/".join(quote(part, safe="") for part in bare.split("/"))
    text = f"pkg:{kind}/{path}" + (f"@{quote(version, safe='')}" if version else "")
    asked = "&".join(f"{key}={quote(value, safe=':')}" for key, value in sorted(found.items()) if value)
    return f"{text}?{asked}" if asked else text
