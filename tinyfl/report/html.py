"""The building blocks of a page: its skeleton, its style, HTML elements, and number formats.

A page is one self-contained file, without external scripts, fonts or images.
"""

import base64
import html
from collections.abc import Sequence
from math import isfinite
from string import Template

from tinyfl import __version__
from tinyfl.errors.words import MAX_LINE_CHARS, plain, visible

MAX_PARAGRAPH_CHARS = 1000


def known(value: float | None) -> bool:
    """Whether a number of result.json is finite: null means non-finite."""
    return value is not None and isfinite(value)


def percent(value: float, half: float | None = None) -> str:
    """0.912 and 0.004 as 91.2 % ± 0.4."""
    return f"{100 * value:.1f} %" + (f" ± {100 * half:.1f}" if half is not None and isfinite(half) else "")


def loss(value: float | None, half: float | None = None) -> str:
    """A loss, rounded as its interval supports; null means diverged."""
    if value is None or not isfinite(value):
        return "diverged"
    if half is None or not isfinite(half) or half <= 0:
        return f"{value:.3g}" if abs(value) < 1e5 else f"{value:.2e}"
    if not 1e-3 <= max(abs(value), half) < 1e5:
        return f"{value:.2e} ± {half:.1e}"
    places = max(0, 1 - int(f"{half:e}".partition("e")[2]))
    return f"{value:,.{places}f} ± {half:,.{places}f}"


def size(count: float) -> str:
    """Bytes in readable units: 4,612 is 4.6 KB."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"


def three_digits(value: float) -> str:
    """1.674 as 1.67 and 7321 as 7,320, never with an exponent."""
    return f"{float(f'{value:.3g}'):,.12g}"


def seconds(value: float) -> str:
    """A time to two digits, or to a whole second."""
    return f"{1000 * value:.2g} ms" if value < 0.1 else f"{value:#.2g} s" if value < 9.95 else f"{value:,.0f} s"


def counted(count: int, what: str) -> str:
    """1 shot, 5 shots."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def text(words: object, most: int = MAX_LINE_CHARS) -> str:
    """Untrusted text, escaped for HTML."""
    return html.escape(plain(words, most))


def pre(text: str) -> str:
    """Untrusted lines, escaped for HTML, in a <pre>."""
    return f"<pre>{html.escape(visible(text))}</pre>"


def table(head: str, body: str, kind: str = "") -> str:
    """A table that scrolls horizontally in a narrow window; ``head`` and ``body`` are rows of HTML."""
    top = f"<thead>{head}</thead>" if head else ""
    return f'<div class="wide"><table class="{kind}">{top}<tbody>{body}</tbody></table></div>'


def cells(values: Sequence[str]) -> str:
    """Right-aligned cells of plain text."""
    return "".join(f'<td class="r">{text(value)}</td>' for value in values)


def header(title: str, below: str) -> str:
    """The head of a page, from plain text."""
    return f"<header><h1>{text(title)}</h1><p>{text(below, MAX_PARAGRAPH_CHARS)}</p></header>"


def section(title: str, content: str) -> str:
    """A part of a page: a title of plain text over HTML."""
    return f"<section><h2>{text(title)}</h2>{content}</section>"


def image(png: bytes | Exception, alt: str, caption: str) -> str:
    """A figure with an embedded image, or the reason for its absence."""
    if isinstance(png, Exception):
        return f'<p class="note">Left out: matplotlib cannot draw it here ({text(png, MAX_PARAGRAPH_CHARS)}).</p>'
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img alt="{text(alt)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text(caption, MAX_PARAGRAPH_CHARS)}</figcaption></figure>"
    )


def whole(title: str, body: Sequence[str], kind: str = "") -> bytes:
    """A complete page from ``body``, pieces of HTML; ``kind`` "broad" is for wide tables."""
    return _PAGE.substitute(title=text(title), style=_STYLE, kind=kind, body="\n".join(body), version=text(__version__)).encode(
        errors="replace"
    )


_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title · tinyfl</title>
<style>$style</style>
</head>
<body>
<main class="$kind">
$body
<footer>Written by tinyfl $version.</footer>
</main>
</body>
</html>
""")

_STYLE = """
:root {
  --back: #fafaf8; --card: #fff; --ink: #1f2328; --dim: #5f6771; --line: #e3e5e8; --accent: #0067a3; --tint: #eaf3f9;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #15181c; --card: #1d2126; --ink: #e6e8ea; --dim: #9aa2ab; --line: #30363d; --accent: #6db9e8; --tint: #1b2b37;
  }
  img { filter: brightness(.9) }
}
* { box-sizing: border-box }
body {
  margin: 0; background: var(--back); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif;
}
main { max-width: 60rem; margin: 0 auto; padding: 3rem 1.5rem }
main.broad { max-width: 84rem }
h1 { font-size: 1.15rem; font-weight: 600; margin: 0 }
header p { margin: .1rem 0 0; color: var(--dim); font-size: .9rem }
h2 { font-size: 1.15rem; font-weight: 600; margin: 3rem 0 .8rem }
.headline {
  font-size: 1.75rem; line-height: 1.32; letter-spacing: -.012em; margin: 1.8rem 0; max-width: 46rem; text-wrap: pretty;
}
.verdict { border-left: 4px solid #c14b00; padding: .5rem 1rem; margin: 1.8rem 0 0; max-width: 46rem; font-weight: 600 }
.headline strong { color: var(--accent); font-weight: 650 }
.n { white-space: nowrap }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .9rem 1.1rem }
.tile b { display: block; font-size: 1.7rem; line-height: 1.2; font-weight: 600; font-variant-numeric: tabular-nums }
.tile.first { background: var(--tint); border-color: transparent }
.tile.first b { color: var(--accent) }
.tile span { color: var(--dim); font-size: .85rem }
figure { margin: 0 }
img { display: block; width: 100%; height: auto; padding: .7rem; background: #fff; border: 1px solid var(--line) }
img, pre { border-radius: 10px }
main.broad figure { max-width: 60rem }
figcaption, .note { color: var(--dim); font-size: .875rem; margin: .7rem 0 0; max-width: 48rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums }
th, td { padding: .32rem .7rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child { padding-left: .4rem }
thead th { color: var(--dim); font-weight: 500; text-align: right; vertical-align: bottom }
thead th.l { text-align: left }
thead th.group { text-align: center; color: var(--ink); font-weight: 600 }
thead tr:first-child:not(:last-child) th:not(.group) { border-bottom: 0 }
tbody th { font-weight: 500 }
tr:has(+ tr.first) td { border-bottom-color: var(--dim) }
.r { text-align: right }
.dim { color: var(--dim) }
.lead td, .lead th { background: var(--tint); font-weight: 600 }
.best { color: var(--accent); font-weight: 650 }
.needs { width: auto; font-size: .95rem }
.needs td.r { font-weight: 600; padding-left: 2.5rem }
.parts { width: auto; font-size: .95rem }
.parts .dim { white-space: normal; min-width: 15rem }
.note + figure, .wide + figure { margin-top: 1.5rem }
pre { background: var(--card); border: 1px solid var(--line); padding: .7rem 1rem; overflow-x: auto }
pre, code { font: .85rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.5rem; font-size: .9rem; margin: 1rem 0 }
dt { color: var(--dim) }
dd { margin: 0; overflow-wrap: anywhere }
summary { cursor: pointer; color: var(--dim); font-size: .9rem }
footer { margin-top: 3.5rem; color: var(--dim); font-size: .8rem }
@media (max-width: 34rem) {
  main { padding: 1.5rem 1rem }
  .headline { font-size: 1.35rem }
  .tiles { grid-template-columns: 1fr 1fr }
  .tile b { font-size: 1.35rem }
  dl { grid-template-columns: 1fr; gap: 0 }
  dd { margin-bottom: .6rem }
}
@media print {
  main { max-width: none; padding: 0 }
  figure, .tile, tr { break-inside: avoid }
}
"""
