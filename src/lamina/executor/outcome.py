"""How a step ended, from what the runtime left: exit code, signal, lack of memory, or that it could not start at all.

The helper imports this module, so it must stay light.
"""

from __future__ import annotations

import json
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

_NOT_FOUND = ("no such file or directory", "not found in $path")
_NOT_EXECUTABLE = ("permission denied", "not permitted", "exec format error", "is a directory")
_LOG_LIMIT = 64 << 10


def outcome(status: int, message: str, runtime: str, *, ended_by: int, oom: bool) -> Json:
    """Return the answer for a step whose runtime has ended.

    Args:
        status: of the runtime, as waitpid gives it.
        message: the runtime's last error, "" when it had none or the step was killed.
        runtime: its name, for messages.
        ended_by: the signal that the step was ended for, 0 for none.
        oom: the machine ran out of memory meanwhile, so that SIGKILL may have come from there.
    """
    code = os.waitstatus_to_exitcode(status)
    code = 128 - code if code < 0 else code
    if ended_by:
        code = 128 + ended_by
    message = message if code else ""
    if message:
        lowered = message.lower()
        # The runtime's words for a program that is not there or cannot be executed, in a shell's numbers.
        is_program = "exec" in lowered or "open executable" in lowered
        if is_program and any(text in lowered for text in _NOT_FOUND):
            code = 127
        elif is_program and any(text in lowered for text in _NOT_EXECUTABLE):
            code = 126
        else:
            return {"error": f"the OCI runtime {runtime} could not run the step: {message}"}
    killed_by = code - 128 if 128 < code <= 192 else 0
    return {"exit_code": code, "signal": killed_by, "oom": oom and killed_by == signal.SIGKILL, "message": message}


def oom_kills() -> int:
    """Return the machine's count of out-of-memory kills."""
    try:
        with open("/proc/vmstat") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0


def runtime_message(home: str) -> str:
    """Return the last error in the runtime's log, "" when it had none: then the exit code is the step's own."""
    try:
        with open(f"{home}/log", "rb") as file:
            lines = file.read(_LOG_LIMIT).decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("level") in ("error", "fatal"):
            return str(record.get("msg", ""))
    return ""
