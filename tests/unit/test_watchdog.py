"""Calls that may hang run in a thread of their own, with one torch thread."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from scalepilot.errors import EnvironmentFailedError
from scalepilot.learn.rllib.watchdog import Watchdog


def test_watched_calls_have_one_torch_thread_and_the_caller_keeps_its_own():
    watchdog, before = Watchdog("env x", "limit"), torch.get_num_threads()
    assert watchdog(torch.get_num_threads, 10.0) == 1
    assert torch.get_num_threads() == before
    watchdog.end()


def test_its_thread_ends_and_it_can_be_used_again():
    watchdog = Watchdog("env x", "limit")
    thread = watchdog(threading.current_thread, 10.0)
    watchdog.end()
    thread.join(10.0)
    assert not thread.is_alive()
    assert watchdog(lambda: 7, 10.0) == 7
    watchdog.end()


def test_what_a_call_raises_is_raised_and_what_hangs_is_named():
    watchdog = Watchdog("env x", "limit")
    with pytest.raises(ZeroDivisionError):
        watchdog(lambda: 1 / 0, 10.0)
    with pytest.raises(EnvironmentFailedError, match=r"env x: hangs: .* limit, 0\.05 s"):
        watchdog(lambda: time.sleep(0.5), 0.05)
    watchdog.end()
