"""The value of `RUN --device`: a device's name, and whether the build fails without it.

In: the flag's text. Out: `instructions.Device`. Reference: Dockerfile reference, "RUN --device"; keys are BuildKit's.
Pure. Variables are not expanded, as in BuildKit.
"""

from __future__ import annotations

from lamina.dockerfile.flag_fields import parse_boolean, split_fields
from lamina.dockerfile.instructions import Device
from lamina.dockerfile.suggest import did_you_mean
from lamina.errors import InputError

_KEYS = ("name", "required")


def parse_device(text: str) -> Device:
    """Return the device that `text` asks for: `NAME`, `NAME,required`, `name=NAME,required=false`.

    Raises:
        InputError: no name or several, an unknown key, a value that is no boolean.
    """
    name, required = "", False
    for field in split_fields("--device", text):
        written, equals, value = field.partition("=")
        key = written.lower()
        if key == "required":
            required = parse_boolean("--device", written, value) if equals else True
        elif key == "name" and equals:
            if name:
                raise InputError(f"--device: the name is {name!r} already", hint="write --device once for each device")
            name = value
        elif not name:
            name = field  # of a device `vendor.com/class=name`, too
        else:
            advice = did_you_mean(key, _KEYS, otherwise=f"behind the name can stand: {', '.join(_KEYS)}")
            raise InputError(f"--device: no key {written[:80]!r}", hint=advice)
    if not name:
        raise InputError("--device needs a name", hint="write --device=vendor.com/class=name")
    return Device(name, required)
