"""Pieces of a report's page: its style, tables, sections, pictures. Text is escaped unless it is markup already."""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from PIL import Image

from eval.operating import Share

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # the browser itself refuses any request
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1180px; margin: 2em auto; padding: 0 1em }
nav { columns: 3; margin: 1em 0 } nav a { display: block; color: #1f5fa8 } h2 { margin-top: 2em }
table { border-collapse: collapse; margin: .6em 0 1.4em; font-variant-numeric: tabular-nums }
td, th { padding: .22em .6em; text-align: right; font-weight: normal; vertical-align: baseline }
td { white-space: nowrap } td:first-child, th:first-child { text-align: left; white-space: normal }
thead th { font-weight: 600; border-bottom: 2px solid #444 }
tbody tr.first { border-top: 1px solid #ccc } tr.even, table.plain tbody tr:nth-child(even) { background: #f4f6f8 }
tr.odd:not(.first) td:first-child, tr.even:not(.first) td:first-child { text-align: right; white-space: nowrap }
table.wide { font-size: 13px } table.wide td { padding: .22em .45em }
.small, small { color: #666; font-size: 13px } td small { font-size: 11.5px }
.scroll { overflow-x: auto } code { background: #f0f0f0; padding: .1em .3em; overflow-wrap: anywhere }
pre { font-size: 12px; white-space: pre-wrap }
svg text { font: 11px system-ui, sans-serif; fill: #333 } svg .title { font-weight: 600; font-size: 12px }
svg .fine { font-size: 10px } svg .grid { stroke: #ddd; fill: none }
.charts { display: flex; flex-wrap: wrap; gap: 8px }
.key span { display: inline-block; width: 1.6em; height: .25em; margin: 0 .4em .2em 1em }
.case { border-top: 1px solid #ccc; padding: 1em 0; break-inside: avoid } figure { margin: .5em 0 }
.case img { max-width: 100%; border: 1px solid #ddd } dt { font-weight: 600; margin-top: .4em } dd { margin: 0 }
.warn { background: #fff4d6; padding: .6em 1em; border-left: 4px solid #d9a300 }
.absent { background: #f0f0f0; padding: .6em 1em; border-left: 4px solid #999 }
@media print {
  @page { margin: 12mm } body { font-size: 10pt; max-width: none; margin: 0; padding: 0 } nav { display: none }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact } h2, h3 { break-after: avoid }
  tr, svg, figure { break-inside: avoid } thead { display: table-header-group } .scroll { overflow: visible }
  table.wide { font-size: 7.5pt } td small { font-size: 6.5pt } td, th { padding: .15em .3em }
}
"""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def markup(value: Any) -> Html:
    """As markup: Html as it is, None as "-", anything else escaped."""
    if isinstance(value, Html):
        return value
    return Html("-" if value is None else escape(str(value)))


def joined(parts: Iterable[Any], between: str = "") -> Html:
    """Parts one after the other."""
    return Html(between.join(markup(part) for part in parts))


def element(tag: str, *content: Any, **attributes: str) -> Html:
    """`element("p", "a < b", class_="small")`."""
    shown = "".join(f' {name.rstrip("_")}="{escape(value)}"' for name, value in attributes.items())
    return Html(f"<{tag}{shown}>{joined(content)}</{tag}>")


def number(value: float | None, digits: int = 3) -> str:
    """A number, "-" for one that does not exist."""
    return "-" if value is None else f"{value:.{digits}f}"


def with_interval(value: float | None, interval: Sequence[float] | None, digits: int = 3) -> Html:
    """A number and its bounds in small."""
    if value is None or interval is None:
        return markup(number(value, digits))
    low, high = (number(bound, digits) for bound in interval)
    return joined([number(value, digits), " ", element("small", f"{low} to {high}")])


def share(of: Share) -> Html:
    """0.93 with its interval and counts in small."""
    if of.value is None or of.interval is None:
        return element("small", "of none")
    low, high = of.interval
    return joined([f"{of.value:.2f} ", element("small", f"{low:.2f} to {high:.2f}, {of.part}/{of.whole}")])


def table(headings: Sequence[Any], rows: Iterable[Sequence[Any]], *, is_wide: bool = False) -> Html:
    """A table whose rows are lists of cells."""
    head = element("thead", element("tr", *(element("th", heading) for heading in headings)))
    body = element("tbody", *(element("tr", *(element("td", cell) for cell in row)) for row in rows))
    return element("div", element("table", head, body, class_="wide plain" if is_wide else "plain"), class_="scroll")


def grouped_table(headings: Sequence[Any], groups: Iterable[tuple[Sequence[Any], Sequence[Sequence[Any]]]]) -> Html:
    """A table whose first cells span the rows of a group: (first cells, rows of the others)."""
    lines = []
    for number_, (first, rows) in enumerate(groups):
        for i, row in enumerate(rows):
            spanning = [element("td", cell, rowspan=str(len(rows))) for cell in first] if i == 0 else []
            kind = f"{'first ' if i == 0 else ''}{'even' if number_ % 2 else 'odd'}"
            lines.append(element("tr", *spanning, *(element("td", cell) for cell in row), class_=kind))
    head = element("thead", element("tr", *(element("th", heading) for heading in headings)))
    return element("div", element("table", head, element("tbody", *lines), class_="wide"), class_="scroll")


def absent(why: str, command: str) -> Html:
    """What stands where a section cannot be, and the command that fills it."""
    return element("p", f"Not in this report: {why}. Filled by ", element("code", command), class_="absent")


def picture(image: Image.Image, alt: str) -> Html:
    """An image inside the file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return embedded(buffer.getvalue(), alt)


def embedded(png: bytes, alt: str) -> Html:
    """A PNG file inside the file."""
    content = base64.b64encode(png).decode()
    return Html(f'<img alt="{escape(alt)}" src="data:image/png;base64,{content}">')
