"""Sets back the clock of the process that imports it, and of its forks."""

import time
from collections.abc import Callable

SECONDS = 5

_now: Callable[[], float] = time.time
_now_ns: Callable[[], int] = time.time_ns


def _behind() -> float:
    return _now() - SECONDS


def _behind_ns() -> int:
    return _now_ns() - SECONDS * 1_000_000_000


time.time = _behind
time.time_ns = _behind_ns
