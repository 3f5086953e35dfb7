"""What a policy does with history, as one HTML page that needs nothing else: figures, labelled events, a picture of each signal."""

import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring
from zoneinfo import ZoneInfo

from pipeline.alerting import notice
from pipeline.runtime.backtest import whole_file
from pipeline.runtime.trial import Raised, Trial, compare
from pipeline.runtime.trial_words import picture, shown, when

MOST_PICTURES = 100
"""A picture takes 10 kB."""

_WIDTH, _HEIGHT, _LEFT, _LINE = 900, 180, 30, 16
"""Of a picture: its size, where the bars begin, and what a line of text takes."""
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Complaint Radar 客户异议雷达: backtest</title>
<style>body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em}section{border-top:1px solid #ccc}
.tag{color:#d0312d}.quote{font-style:italic}svg{width:100%;height:auto}</style></head><body>
"""


def write(out: Path, trial: Trial, present: Trial | None, head: Sequence[str]) -> None:
    """Write the page.

    Args:
        out: the file, written when all is done.
        trial: of the policy that is tried.
        present: of the policy in force, if another one is tried.
        head: lines that stand at the top.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    with whole_file(out, "--report") as lines:
        lines.writelines(f"{one}\n" for one in _page(trial, present, head))


def _page(trial: Trial, present: Trial | None, head: Sequence[str]) -> Iterator[str]:
    yield _HEAD + "<h1>Complaint Radar 客户异议雷达: backtest</h1>"
    yield from (f"<p>{html.escape(line)}</p>" for line in head)
    if present is None:
        yield from _sections(trial, trial.signals, "", MOST_PICTURES)
        return
    both, only, lost = compare(trial, present)
    parts = (
        (trial, only, "只在新策略下 only under the policy that is tried"),
        (present, lost, "不再触发 not opened any more"),
        (trial, [one for one, _ in both], "两者都触发 opened under both"),
    )
    left = MOST_PICTURES
    for of, signals, tag in parts:
        yield from _sections(of, signals, tag, left)
        left = max(0, left - len(signals))


def _sections(trial: Trial, signals: Sequence[Raised], tag: str, pictures: int) -> Iterator[str]:
    zone = ZoneInfo(trial.policy.time_zone)
    for number, one in enumerate(signals):
        yield "<section>" + (f'<p class="tag">{html.escape(tag)}</p>' if tag else "")
        yield f"<h2>{html.escape(notice.headline(one.opening, 'zh'))}<br>{html.escape(notice.headline(one.opening, 'en'))}</h2>"
        for language in ("zh", "en"):
            yield f"<p>{html.escape(notice.numbers(one.opening, language, zone, trial.policy.step))}</p>"
        yield f"<p>{html.escape(shown(one, trial.policy))}</p>"
        yield from (f'<p class="quote">「{html.escape(quote)}」</p>' for quote in notice.quotes(one.opening, 2))
        yield (_chart(one, trial) if number < pictures else "<p>…</p>") + "</section>"


def _chart(raised: Raised, trial: Trial) -> str:
    """Voices a step as bars, those from the opening on in another colour; what the signal's windows expected as dashes."""
    starts, voices, expected = picture(raised, trial)
    top = max(*voices, *(value for value in expected if value is not None), 1.0)
    bar, scale = (_WIDTH - _LEFT) / len(starts), (_HEIGHT - 2 * _LINE) / top
    svg = Element("svg", viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img")
    for number, (start, count, mean) in enumerate(zip(starts, voices, expected, strict=True)):
        left, colour = _LEFT + number * bar, "#d0312d" if start >= raised.opening.opened_step else "#4a78b5"
        place = {"x": f"{left:.1f}", "y": f"{_HEIGHT - _LINE - count * scale:.1f}", "fill": colour}
        column = SubElement(svg, "rect", place, width=f"{bar * 0.8:.1f}", height=f"{count * scale:.1f}")
        SubElement(column, "title").text = f"{when(start, trial.policy)}: {count}"
        if mean is not None:
            dash = {"d": f"M{left:.1f} {_HEIGHT - _LINE - mean * scale:.1f}h{bar:.1f}", "stroke": "#000"}
            SubElement(svg, "path", dash | {"stroke-dasharray": "4 2"})
        if number % 10 == 0:
            _label(svg, left, _HEIGHT - 4, when(start, trial.policy))
    _label(svg, 0, _LINE, f"{top:g}")
    _label(svg, _LEFT, _LINE - 4, "客户 voices (红 red: 触发后 since it opened; 虚线 dashes: 应为 expected)")
    return tostring(svg, encoding="unicode")


def _label(svg: Element, x: float, y: float, text: str) -> None:
    SubElement(svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "font-size": "11"}).text = text
