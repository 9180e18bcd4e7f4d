"""A limit on how often requests start."""

import threading
import time


class Pace:
    """At most so many starts per minute, over all threads."""

    def __init__(self, per_minute: float) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Sleep until this request may start."""
        with self._lock:
            start = max(time.monotonic(), self._next)
            self._next = start + self._gap
        time.sleep(max(start - time.monotonic(), 0))
