"""Platforms: os/architecture/variant, their normal form, and the choice among several.

Sources: image-spec image-index.md ("platform"), and the normal forms that containerd and docker users know
(`x86_64` is `amd64`, `aarch64` is `arm64`, `arm` means `arm/v7`, `arm64/v8` is `arm64`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from lamina.errors import InputError

T = TypeVar("T")

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "loongarch64": ("loong64", ""),
}
_OS = {"macos": "darwin"}


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and a processor, in normal form."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Parse `os/arch[/variant]`, `arch`, or `local`.

        Raises:
            InputError: the text has another shape.
        """
        if text == "local":
            return host_platform()
        parts = text.strip().lower().split("/")
        if not all(parts) or len(parts) > 3 or not all(p.replace("_", "a").replace("-", "a").isalnum() for p in parts):
            raise InputError(f"not a platform: {text!r}", hint="write os/architecture, such as linux/amd64")
        if len(parts) == 1:
            return cls.normal("linux", parts[0])
        return cls.normal(*parts)

    @classmethod
    def normal(cls, os_name: str, architecture: str, variant: str = "", os_version: str = "") -> Platform:
        """Return the normal form of these parts."""
        os_name = _OS.get(os_name.lower(), os_name.lower())
        architecture, implied = _ARCHITECTURES.get(architecture.lower(), (architecture.lower(), ""))
        variant = variant.lower() or implied
        if architecture == "arm64" and variant in ("8", "v8"):
            variant = ""
        if architecture == "arm":
            variant = {"": "v7", "7": "v7", "6": "v6", "5": "v5", "8": "v8"}.get(variant, variant)
        if architecture == "amd64" and variant == "v1":
            variant = ""
        return cls(os_name, architecture, variant, os_version)

    def candidates(self) -> list[Platform]:
        """Return what may run where `self` is asked for, best first: itself, then lower variants."""
        found = [Platform(self.os, self.architecture, self.variant)]
        level = self.variant.removeprefix("v")
        if self.architecture in ("arm", "amd64") and level.isdigit():
            lowest = 5 if self.architecture == "arm" else 2
            found += [Platform(self.os, self.architecture, f"v{n}") for n in range(int(level) - 1, lowest - 1, -1)]
            if self.architecture == "amd64":
                found.append(Platform(self.os, "amd64"))
        if self.architecture == "arm64":
            found += [Platform(self.os, "arm", f"v{n}") for n in (8, 7, 6, 5)]
        return found


def choose_platform(wanted: Platform, offers: Iterable[T], platform_of: Callable[[T], Platform | None]) -> T | None:
    """Return the offer that fits `wanted` best; among equals the first; None when nothing fits."""
    offers = list(offers)
    for candidate in wanted.candidates():
        for offer in offers:
            platform = platform_of(offer)
            if platform and (platform.os, platform.architecture, platform.variant) == (
                candidate.os,
                candidate.architecture,
                candidate.variant,
            ):
                return offer
    return None


def host_platform() -> Platform:
    """Return the platform of this machine."""
    return Platform.normal("linux", os.uname().machine)
