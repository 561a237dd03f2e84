"""Whether the settings of an image hold in its files: USER, WORKDIR, the time zone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lamina.checks.result_view import ImageView, Trouble

_ZONE = re.compile(r"[A-Z][A-Za-z]+(/[A-Za-z0-9_+-]+){1,2}")
_NO_RULES = frozenset(
    {"Etc/UTC", "Etc/UCT", "Etc/GMT", "Etc/Universal", "Etc/Zulu", "Etc/Greenwich"}
)  # what is without
_MAX_SHOWN = 200


def check_user(image: ImageView) -> Iterator[Trouble]:
    """Yield names in USER that /etc/passwd and /etc/group do not have."""
    user, _, group = str(image.config.get("User") or "")[:_MAX_SHOWN].partition(":")
    for name, path, what, option in ((user, "etc/passwd", "user", "USER 1000"), (group, "etc/group", "group", "1000")):
        if not name or (name.isascii() and name.isdigit()):
            continue
        place = image.place("/" + path)
        if place.is_file:
            text = image.tree.text(place.path)
            if text is None or _has_name(text, name):
                continue
            why = f"which /{path} does not have: create it (RUN {what}add {name})"
        elif image.from_outside(path):
            continue
        else:
            why = f"but the image has no /{path}: copy one from the build stage"
        yield Trouble(
            "UserMissing", f"USER names the {what} {name!r}, {why}, or give a number such as {option}", "USER"
        )


def check_workdir(image: ImageView) -> Iterator[Trouble]:
    """Yield a working directory that is none."""
    path = str(image.config.get("WorkingDir") or "")
    if not path.startswith("/") or image.from_outside(path):
        return
    place = image.place(path)
    if place.entry is None:
        text = f"WORKDIR {path} is not in the image"
        why = f"a link to {place.dangling} lies there" if place.dangling else "a later step removed it"
        yield Trouble(
            "WorkdirMissing", f"{text} ({why}): make it again, or set WORKDIR to one that is there", "WORKDIR"
        )
    elif place.entry.kind != "d":
        yield Trouble(
            "WorkdirMissing", f"WORKDIR {path} is no directory but a file: no container can start there", "WORKDIR"
        )


def check_zone(image: ImageView) -> Iterator[Trouble]:
    """Yield a time zone whose rules are not in the image."""
    zone = image.env.get("TZ", "").removeprefix(":")
    if not _ZONE.fullmatch(zone) or zone in _NO_RULES or image.place(f"/usr/share/zoneinfo/{zone}").is_file:
        return
    if image.env.get("TZDIR") or image.env.get("ZONEINFO") or image.env.get("PYTHONTZPATH"):
        return
    known = bool(image.tree.children(image.place("/usr/share/zoneinfo").path))
    if known:
        text = f"TZ={zone} names no zone of /usr/share/zoneinfo: check the spelling"
    else:
        text = f"TZ={zone} is set but the image has no time zones, so times are in UTC: install tzdata"
    yield Trouble("TimeZoneMissing", text, "ENV")


def _has_name(text: bytes, name: str) -> bool:
    start = name.encode("utf-8", "surrogateescape") + b":"
    return any(line.startswith(start) for line in text.splitlines())
