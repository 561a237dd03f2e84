"""References: `registry/repository:tag@digest`, with docker's short forms.

Grammar: the one of the distribution project that docker users know. `alpine` means
`docker.io/library/alpine:latest`; the first part is a registry when it holds a dot, a colon, an upper-case
letter, or is `localhost`. Linear-time hand parsing: references come from Dockerfiles and peers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lamina.errors import InputError
from lamina.oci.digest import Digest

DEFAULT_REGISTRY = "docker.io"
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?\Z")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference: registry and repository always, tag or digest or both where given."""

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str, *, default_tag: str = "latest") -> Reference:
        """Parse what a user wrote; without tag and digest `default_tag` is taken (may be "").

        Raises:
            InputError: the text is not a reference; the message says which part.
        """
        if not text or len(text) > 4096:
            raise InputError(f"not an image reference: {text[:80]!r}")
        rest, at, digest_text = text.partition("@")
        digest = Digest(digest_text) if at else None
        slash, colon = rest.rfind("/"), rest.rfind(":")
        tag = ""
        if colon > slash:
            rest, tag = rest[:colon], rest[colon + 1 :]
            if not _TAG.match(tag):
                raise InputError(f"invalid tag {tag[:140]!r} in image reference {text[:200]!r}")
        registry, repository = _split_registry(rest)
        if not _HOST.match(registry):
            raise InputError(f"invalid registry {registry[:140]!r} in image reference {text[:200]!r}")
        if len(repository) > 255 or not all(_COMPONENT.match(part) for part in repository.split("/")):
            hint = "repository names are lower case" if repository != repository.lower() else ""
            raise InputError(f"invalid repository {repository[:140]!r} in image reference {text[:200]!r}", hint=hint)
        if not tag and digest is None:
            tag = default_tag
        return cls(registry, repository, tag, digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"

    def familiar(self) -> str:
        """Return the short form that docker shows: without `docker.io/library/`."""
        name = f"{self.registry}/{self.repository}"
        if self.registry == DEFAULT_REGISTRY:
            name = self.repository.removeprefix("library/")
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{name}{tag}{digest}"

    def with_digest(self, digest: Digest) -> Reference:
        """Return the same reference pinned to `digest`."""
        return replace(self, digest=digest)


def _split_registry(name: str) -> tuple[str, str]:
    """Split `name` (no tag, no digest) into registry and repository, filling in docker's defaults."""
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        registry, repository = first, rest
    else:
        registry, repository = DEFAULT_REGISTRY, name
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository
