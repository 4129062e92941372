"""The same thing asked for twice in a moment is done once: a double click, two tabs, a client that tries again.

Must not know what is done.
"""

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future


class Once:
    """Answers are remembered for some seconds; failures are not, for what was wrong may have been mended."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._answers: dict[Hashable, Future[str]] = {}
        self._given: dict[Hashable, float] = {}
        self._lock = threading.Lock()

    def ask(self, key: Hashable, work: Callable[[], str]) -> str:
        """The answer of `work`, or of the one that was begun for the same key and is at it or has just ended."""
        with self._lock:
            for old in [known for known, at in self._given.items() if time.monotonic() - at > self._seconds]:
                del self._answers[old], self._given[old]
            found = self._answers.get(key)
            if found is None:
                answer = self._answers[key] = Future()
        if found is not None:
            return found.result()
        try:
            answer.set_result(work())
        except BaseException as failure:
            with self._lock:
                del self._answers[key]
            answer.set_exception(failure)
            raise
        with self._lock:
            self._given[key] = time.monotonic()
        return answer.result()
