"""Slots that the builds of one process share: never more than there are, in turns, and given back whatever happens."""

import threading

import pytest

from lamina.cancel import Cancel
from lamina.errors import CancelledError
from lamina.solver.slots import Slots


def test_no_more_run_at_once_than_there_are_slots():
    slots, guard = Slots(3), threading.Lock()
    running, most = [], []

    def step(owner: int) -> None:
        with slots.held(owner, Cancel()):
            with guard:
                running.append(owner)
                most.append(len(running))
            with guard:
                running.remove(owner)

    threads = [threading.Thread(target=step, args=(number % 5,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(most) == 200
    assert max(most) <= 3


def test_builds_take_turns():
    """One that asks for many steps does not keep one that asks for few waiting."""
    slots = Slots(1)
    order: list[str] = []
    queued = threading.Semaphore(0)

    def step(owner: str) -> None:
        queued.release()
        with slots.held(owner, Cancel()):
            order.append(owner)

    with slots.held("first", Cancel()):
        threads = []
        for owner in ("big", "big", "big", "big", "small"):
            thread = threading.Thread(target=step, args=(owner,))
            thread.start()
            queued.acquire()
            threads.append(thread)
            while sum(map(len, slots._waiting.values())) < len(threads):
                pass
    for thread in threads:
        thread.join()

    assert order[:2] == ["big", "small"]


def test_cancelling_ends_the_wait_and_loses_no_slot():
    slots, cancel = Slots(1), Cancel()
    failed: list[BaseException] = []

    def step() -> None:
        try:
            with slots.held("b", cancel):
                pass
        except CancelledError as error:
            failed.append(error)

    with slots.held("a", Cancel()):
        thread = threading.Thread(target=step)
        thread.start()
        cancel.cancel()
        thread.join()
    with slots.held("c", Cancel()):
        pass

    assert len(failed) == 1


def test_a_slot_comes_back_when_a_step_fails():
    slots = Slots(1)
    with pytest.raises(ValueError, match="broken"), slots.held("a", Cancel()):
        raise ValueError("broken")
    with slots.held("b", Cancel()):
        pass


def test_without_a_limit_nobody_waits():
    slots = Slots(0)
    with slots.held("a", Cancel()), slots.held("a", Cancel()):
        pass
