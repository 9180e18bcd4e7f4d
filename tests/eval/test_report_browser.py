"""The report in a real browser: every section and picture is there, no request leaves it, the console stays empty."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from eval.report import SECTIONS, ReportConfig, write_report
from eval.score import ScoreConfig, score

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Added to a copy: what the browser made of the page, as an attribute of <html>.
PROBE = """<script>
addEventListener("load", () => {
  const images = [...document.images];
  document.documentElement.dataset.found = JSON.stringify({
    sections: [...document.querySelectorAll("section")].filter((s) => s.offsetHeight > 40).map((s) => s.id),
    images: images.length,
    broken: images.filter((i) => !i.complete || i.naturalWidth === 0).map((i) => i.alt),
    charts: [...document.querySelectorAll("svg")].filter((s) => s.getBBox().width > 50).length,
    requests: performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:")),
  });
});
</script>"""


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")


def browse(page: Path) -> tuple[str, list[str]]:
    """The document that the browser makes of a page, and every line of its console: errors, warnings, refusals."""
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={page.with_name('profile')}",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, re.findall(r":CONSOLE\S*\] (.*)", done.stderr)


@needs_browser
def test_the_console_shows_errors_warnings_and_what_the_policy_stops(tmp_path: Path) -> None:
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; script-src 'unsafe-inline'\">"
    body = "<img src='https://example.org/a.png'><script>console.warn('careful'); throw new Error('broken')</script>"
    (tmp_path / "wrong.html").write_text(f"<!doctype html><html><head>{policy}</head><body>{body}</body></html>")
    shown = browse(tmp_path / "wrong.html")[1]
    assert [any(word in line for line in shown) for word in ("example.org", "careful", "broken")] == [True] * 3


@needs_browser
def test_a_browser_shows_every_section_and_asks_for_nothing(predictions: dict[str, Path], tmp_path: Path) -> None:
    scores, test = tmp_path / "scores.json", predictions["tuned-test"]
    score(ScoreConfig(predictions=test, validation=predictions["tuned-validate"], out=scores, bootstrap=10))
    report = write_report(
        ReportConfig(
            scores=(f"m={scores}",),
            predictions=(f"m={test}",),
            validation=(f"m={predictions['tuned-validate']}",),
            pages=2,
            draws=5,
            smallest_group=3,
            out=tmp_path / "report.html",
        )
    ).read_text()
    assert "script" not in report
    # The page's own policy forbids scripts, so the copy allows them; it still forbids every request.
    probed = report.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'").replace(
        "</body>", f"{PROBE}</body>"
    )
    (tmp_path / "probed.html").write_text(probed)
    dom, console = browse(tmp_path / "probed.html")
    assert console == []
    attribute = dom.split('data-found="', 1)[1].split('"', 1)[0]
    found = json.loads(attribute.replace("&quot;", '"'))
    assert found["sections"] == list(SECTIONS)
    assert found["broken"] == []
    assert found["images"] >= 2
    assert found["charts"] == report.count("<svg ") > 0
    assert found["requests"] == []
