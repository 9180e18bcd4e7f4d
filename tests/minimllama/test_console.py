"""Words for the person at the terminal."""

import io
import sys

import pytest

from minimllama.console import Progress, duration, say


class Terminal(io.StringIO):
    """A standard error that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_results_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    say("one")
    say()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("one\n\n", "")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")])
def test_durations_are_hours_minutes_and_seconds(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_on_a_terminal_one_line_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress()
    progress.show("step 10")
    progress.show("end", last=True)
    assert terminal.getvalue() == "\rstep 10\rend    \n"  # the longer line is wiped


def test_elsewhere_a_plain_line_appears_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(every=3)
    for step in range(1, 8):
        progress.show(f"step {step}", last=step == 6)
    assert capsys.readouterr().err.split("\n")[:-1] == ["step 1", "step 4", "step 6", "step 7"]
