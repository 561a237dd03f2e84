"""Which devices of this machine a step gets: what it asks for, found here, and allowed by the user.

In: the op's requests, the machine's `CdiRegistry`, the entitlements of the build. Out: qualified names in order.
As with BuildKit: a device is allowed by `--allow device` (all), by `--allow device=NAME` (whatever NAME stands for), or
by an annotation in its file; `device=NAME,alias=OTHER` lets steps ask for it as OTHER. An optional device that is not
here is left out, one that is here must be allowed. The names count in the step's key, what the devices bring does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lamina.errors import InputError, SourceRange
from lamina.executor.cdi_registry import CdiRegistry


@dataclass(frozen=True, slots=True)
class DeviceGrants:
    """What `--allow device...` says.

    Attributes:
        everything: every device of this machine.
        names: requests whose devices are allowed.
        aliases: what a step may write, and what that stands for.
    """

    everything: bool
    names: tuple[str, ...]
    aliases: dict[str, str]


@dataclass(frozen=True, slots=True)
class StepDevices:
    """The devices of one step: those it gets, and what it asked for that is not here."""

    names: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def parse_grants(entitlements: Iterable[str]) -> DeviceGrants:
    """Return the device grants among entitlements (`device`, `device=NAME`, `device=NAME,alias=OTHER`)."""
    everything, names, aliases = False, [], {}
    for entitlement in entitlements:
        if entitlement == "device":
            everything = True
        elif entitlement.startswith("device="):
            name, _, alias = entitlement.removeprefix("device=").partition(",alias=")
            if alias:
                aliases[alias] = name
            else:
                names.append(name)
    return DeviceGrants(everything, tuple(names), aliases)


def find_devices(
    requests: Iterable[Any], registry: CdiRegistry, entitlements: Iterable[str], source: SourceRange | None
) -> StepDevices:
    """Return the devices for an op's `CDIDevice` messages.

    Raises:
        InputError: a required device is not here; one that is was not allowed.
    """
    grants = parse_grants(entitlements)
    allowed = {name for grant in grants.names for name in registry.find(grant)}
    names: list[str] = []
    absent: list[str] = []
    forbidden: list[str] = []
    for request in requests:
        wanted = grants.aliases.get(request.name)
        found = registry.find(request.name if wanted is None else wanted)
        if not found:
            if not request.optional:
                raise _placed(registry.missing(request.name if wanted is None else wanted), source)
            absent.append(request.name)
        granted = grants.everything or wanted is not None
        forbidden += [
            name
            for name in found
            if not (granted or name in allowed or registry.get(name).device.auto_allowed) and name not in forbidden
        ]
        names += found
    if forbidden:
        many = len(forbidden) > 1
        raise InputError(
            f"{'devices' if many else 'device'} {', '.join(forbidden)} {'are' if many else 'is'} "
            "requested by the build but not allowed",
            source=source,
            hint=f"allow {'them' if many else 'it'} with " + " ".join(f"--allow device={name}" for name in forbidden),
        )
    return StepDevices(tuple(dict.fromkeys(names)), tuple(absent))


def _placed(error: InputError, source: SourceRange | None) -> InputError:
    error.source = error.source or source
    return error
