"""The first signal cancels in good order, the second ends at once."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from lamina.cli.signals import cancelling

WAITS = """
from lamina.cli.signals import cancelling
with cancelling() as cancel:
    print("ready", flush=True)
    cancel.wait(60)
    print("cancelled", flush=True)
    {then}
"""


def start(then: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WAITS.format(then=then)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels(number: signal.Signals):
    with start("raise SystemExit(7)") as process:
        process.send_signal(number)
        assert process.stdout is not None and process.stdout.readline() == "cancelled\n"
        assert process.wait(30) == 7


def test_a_second_signal_does_not_wait():
    with start("import threading; threading.Event().wait(60)") as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None and process.stdout.readline() == "cancelled\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with cancelling():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
