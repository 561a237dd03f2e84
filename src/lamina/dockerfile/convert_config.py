"""The instructions that only describe the image: ENV, LABEL, CMD and their like.

Each changes the config, adds a row of history in the words docker uses, and makes no layer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from lamina.dockerfile import instructions as ins
from lamina.dockerfile.durations import format_duration
from lamina.dockerfile.suggest import did_you_mean
from lamina.errors import InputError, SourceRange

if TYPE_CHECKING:
    from lamina.dockerfile.convert_stage import StageState

DEFAULT_SHELL = ("/bin/sh", "-c")
_SIGNAL = re.compile(r"(?:SIG)?(?:RTMIN(?:\+\d{1,2})?|RTMAX(?:-\d{1,2})?|[A-Z0-9]{2,8})\Z", re.IGNORECASE)
_PROTOCOLS = ("tcp", "udp", "sctp")


def convert_arg(item: ins.Arg, state: StageState) -> None:
    """ARG: a value from outside, else the default, else the global ARG of that name."""
    shown = []
    conversion = state.conversion
    for name, default in item.pairs:
        name = state.expand(name, item.source)
        value = conversion.options.build_args.get(name)
        if value is not None:
            conversion.used_args.add(name)
        elif default is not None:
            value = state.expand(default, item.source)
        else:
            value = conversion.global_args.get(name)
        state.declare(name, value)
        shown.append(name if value is None else f"{name}={value}")
    state.history(f"ARG {' '.join(shown)}", layer=False)


def convert_env(item: ins.Env, state: StageState) -> None:
    """ENV: every value sees the variables from before the instruction."""
    before = state.variables()
    words = state.conversion.words
    shown = []
    for name, value in item.pairs:
        name = words.word(name, before, item.source).text
        value = words.word(value, before, item.source).text
        state.set_env(name, value)
        shown.append(f"{name}={value}")
    state.history(f"ENV {' '.join(shown)}", layer=False)


def convert_label(item: ins.Label, state: StageState) -> None:
    """LABEL."""
    labels = state.config.get("Labels") or {}
    shown = []
    for name, value in item.pairs:
        name, value = state.expand(name, item.source), state.expand(value, item.source)
        labels[name] = value
        shown.append(f"{name}={value}")
    state.config["Labels"] = labels
    state.history(f"LABEL {' '.join(shown)}", layer=False)


def convert_maintainer(item: ins.Maintainer, state: StageState) -> None:
    """MAINTAINER: the image's author."""
    state.fields["author"] = item.name
    state.history(f"MAINTAINER {item.name}", layer=False)


def convert_user(item: ins.User, state: StageState) -> None:
    """USER."""
    state.config["User"] = state.expand(item.user, item.source)
    state.history(f"USER {state.config['User']}", layer=False)


def convert_expose(item: ins.Expose, state: StageState) -> None:
    """EXPOSE: ports and ranges of them."""
    exposed = state.config.get("ExposedPorts") or {}
    words = [word for text in sorted(item.ports) for word in state.split(text, item.source)]
    ports = [port for word in words for port in expand_ports(word, item.source)]
    exposed.update({port: {} for port in ports})
    state.config["ExposedPorts"] = exposed
    state.history(f"EXPOSE [{' '.join(ports)}]", layer=False)


def convert_volume(item: ins.Volume, state: StageState) -> None:
    """VOLUME."""
    volumes = state.config.get("Volumes") or {}
    paths = [state.expand(path, item.source) for path in item.paths]
    if not all(paths):
        raise InputError("VOLUME needs a path that is not empty", source=item.source, hint="is a variable not set?")
    volumes.update({path: {} for path in paths})
    state.config["Volumes"] = volumes
    state.history(f"VOLUME [{' '.join(paths)}]", layer=False)


def convert_stopsignal(item: ins.StopSignal, state: StageState) -> None:
    """STOPSIGNAL: a name or a number."""
    signal = state.expand(item.signal, item.source)
    known = 0 < int(signal) <= 64 if signal.isdecimal() else _SIGNAL.match(signal) and _is_signal(signal)
    if not known:
        hint = did_you_mean(signal, _signals(), otherwise="for example SIGTERM, SIGQUIT or 9")
        raise InputError(f"there is no signal {signal!r}", source=item.source, hint=hint)
    state.config["StopSignal"] = signal
    state.history(f"STOPSIGNAL {signal}", layer=False)


def _signals() -> list[str]:
    import signal

    return [found.name for found in signal.Signals]


def _is_signal(text: str) -> bool:
    import signal

    name = text.upper().removeprefix("SIG")
    return name.startswith(("RTMIN", "RTMAX")) or hasattr(signal, f"SIG{name}") or name == "STKFLT"


def convert_shell(item: ins.Shell, state: StageState) -> None:
    """SHELL: what runs the shell form from here on."""
    state.config["Shell"] = list(item.args)
    state.history(f"SHELL [{' '.join(item.args)}]", layer=False)


def command_line(command: ins.ShellForm | ins.ExecForm, state: StageState) -> list[str]:
    """Return the arguments of a command; the shell form goes through the shell."""
    if isinstance(command, ins.ExecForm):
        return list(command.args)
    return [*(state.config.get("Shell") or DEFAULT_SHELL), command.full_text()]


def convert_cmd(item: ins.Cmd, state: StageState) -> None:
    """CMD."""
    state.config["Cmd"] = command_line(item.command, state)
    state.config["ArgsEscaped"] = True
    state.cmd_set = True
    state.history(f"CMD {quoted_list(state.config['Cmd'])}", layer=False)


def convert_entrypoint(item: ins.Entrypoint, state: StageState) -> None:
    """ENTRYPOINT; drops a CMD that the base brought."""
    state.config["Entrypoint"] = command_line(item.command, state)
    if not state.cmd_set:
        state.config.pop("Cmd", None)
    state.history(f"ENTRYPOINT {quoted_list(state.config['Entrypoint'])}", layer=False)


def convert_healthcheck(item: ins.Healthcheck, state: StageState) -> None:
    """HEALTHCHECK."""
    check: dict[str, Any] = {"Test": ["NONE"]}
    if isinstance(item.command, ins.ExecForm):
        check = {"Test": ["CMD", *item.command.args]}
    elif isinstance(item.command, ins.ShellForm):
        check = {"Test": ["CMD-SHELL", item.command.text]}
    times = {
        "Interval": item.interval_ns,
        "Timeout": item.timeout_ns,
        "StartPeriod": item.start_period_ns,
        "StartInterval": item.start_interval_ns,
    }
    shown = [f"Test:[{' '.join(check['Test'])}]"]
    shown += [f"{name}:{format_duration(value or 0)}" for name, value in times.items()]
    shown.append(f"Retries:{item.retries or 0}")
    check |= {name: value for name, value in (*times.items(), ("Retries", item.retries)) if value}
    state.config["Healthcheck"] = check
    state.history(f"HEALTHCHECK {{{' '.join(shown)}}}", layer=False)


def convert_onbuild(item: ins.Onbuild, state: StageState) -> None:
    """ONBUILD: kept for the images built on this one; no row of history."""
    state.config.setdefault("OnBuild", []).append(item.expression)


_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_ESCAPES |= {'"': '\\"', "\\": "\\\\"}


def quoted_list(words: list[str]) -> str:
    """Return words as docker's history shows a command: `["a" "b"]`, quoted as Go's %q does it."""
    return "[" + " ".join(_quoted(word) for word in words) + "]"


def _quoted(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(letter) or _shown(letter) for letter in text) + '"'


def _shown(letter: str) -> str:
    code = ord(letter)
    if letter.isprintable():
        return letter
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python carries it
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def expand_ports(text: str, source: SourceRange) -> list[str]:
    """Return `port/protocol` for each port of a range; what maps it to a host is dropped.

    Raises:
        InputError: not a port, or a range that goes backwards.
    """
    ports, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    first, dash, last = ports.rpartition(":")[2].partition("-")
    last = last if dash else first
    digits = first.isdecimal() and last.isdecimal() and len(first) <= 5 and len(last) <= 5
    if not digits or not 0 <= int(first) <= int(last) <= 65535 or protocol not in _PROTOCOLS:
        hint = "write 80, 80/udp or 8000-8010"
        if digits and int(first) > int(last):
            hint = f"the range goes backwards: write {last}-{first}"
        raise InputError(f"EXPOSE: {text!r} is not a port", source=source, hint=hint)
    return [f"{number}/{protocol}" for number in range(int(first), int(last) + 1)]
