"""Words for the person at the terminal. Results go to standard output, progress to standard error."""

import sys


def say(text: str = "") -> None:
    """One line of result."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Progress:
    """One line that is rewritten on a terminal; elsewhere a plain line now and then.

    Args:
        every: without a terminal, one line per this many updates.
    """

    def __init__(self, every: int = 20) -> None:
        self._every, self._count, self._width = every, 0, 0
        self._is_terminal = sys.stderr.isatty()

    def show(self, text: str, *, last: bool = False) -> None:
        """Replace the line; `last` ends it."""
        self._count += 1
        if self._is_terminal:
            sys.stderr.write("\r" + text.ljust(self._width) + ("\n" if last else ""))
            self._width = len(text)
        elif last or self._count % self._every == 1:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03, or 2:03."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
