"""Every stored revision of a signal against the one that detection says, field by field, and how much a difference counts."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from pipeline.detection.lifecycle import RISES
from pipeline.detection.replayed import EXACT, Kind, Replayed, Show, Stored, equal, word
from pipeline.detection.tally import HARM
from schemas.signal import Signal

CLOSE = 0.05
"""Relative difference of an expectation that is put down to what the store has lost, if it has lost anything."""
CLOSE_P = 2.0
"""The same of a p-value, as a factor."""

_NUMBERS = (
    "observed",
    "voices",
    "expected",
    "interval",
    "exposure",
    "rate_ratio",
    "p_value",
    "window",
    "opening_state",
)
"""Fields of an opening that the first two questions answer."""
_EXPECTED = ("expected", "interval", "rate_ratio", "p_value", "concentration.drivers")
"""Fields that follow from the expectation."""
_SAID_AT_ONCE = ("evidence", "step_start", "historic")


def compare(stored: Stored, again: Mapping[int, Signal], show: Show, found: Replayed) -> None:
    """Add what differs between the stored revisions and those that detection says."""
    opening, harm = stored.revisions[0], {row.mention_id for row in stored.rows if row.severity >= HARM}
    for one in stored.revisions:
        other = again.get(one.revision)
        of = f"revision {one.revision} ({one.event})"
        if other is None:
            found.add("untold" if found.losses else "differs", "detection does not say it again", of)
            continue
        for name, said, made in _differences(one, other):
            if one.revision and name.startswith("opening_state") and one.opening_state == opening.opening_state:
                continue  # that has been said of the opening
            kind = _weight(one, name, said, made, harm, lossy=bool(found.losses))
            in_words = show if name in ("opened_step", "step_start") else word
            found.add(kind, f"{name}: the signal says {in_words(said)}, made again it is {in_words(made)}", of)
    last = stored.revisions[-1]
    more = again.keys() - {one.revision for one in stored.revisions}
    # What is said at once is stored before its step closes, which says more.
    if more and not (last.kind == "severe" and not last.revision):
        words = f"detection says {len(more)} more revision{'s' * (len(more) != 1)} of it in these steps"
        found.add("untold" if found.losses else "differs", words)


def _weight(one: Signal, name: str, said: object, made: object, harm: set[str], *, lossy: bool) -> Kind:
    """How much a difference counts."""
    top = name.partition(".")[0]
    if one.kind == "severe" and not one.revision and top in _SAID_AT_ONCE and one.evidence:
        # Of several on one day, the one that came first is said at once; the step close corrects it.
        return "remark" if one.evidence[0].mention_id in harm and len(harm) > 1 else "differs"
    if not lossy:
        return "differs"
    if one.kind in RISES and not one.revision and top in _NUMBERS:
        return "remark"
    return "remark" if name.startswith(_EXPECTED) and _close(top, said, made) else "untold"


def _close(name: str, said: Any, made: Any) -> bool:
    if name == "p_value":
        return bool(made <= said * CLOSE_P and said <= made * CLOSE_P)
    if name == "interval":  # of whole numbers, so one more or less is nothing
        return all(abs(one - other) <= 1 + CLOSE * one for one, other in zip(said, made, strict=True))
    return equal(said, made, CLOSE)


def _differences(one: Signal, other: Signal) -> Iterator[tuple[str, object, object]]:
    """Field by field, what has names taken apart: name, what the first says, what the second."""
    for name in one.__struct_fields__:
        said, made = (msgspec.to_builtins(getattr(signal, name)) for signal in (one, other))
        if name == "opening_state":
            said, made = json.loads(said), json.loads(made)
        yield from _apart(name, said, made)


def _apart(name: str, said: Any, made: Any) -> Iterator[tuple[str, object, object]]:
    if isinstance(said, dict) and isinstance(made, dict):
        for key in sorted(said.keys() | made.keys()):
            yield from _apart(f"{name}.{key}", said.get(key), made.get(key))
    elif _items(said) and _items(made) and word(said) == word(made):  # the same mentions or values, in other words
        for number, (one, other) in enumerate(zip(said, made, strict=True), 1):
            yield from _apart(f"{name}.{number}", one, other)
    elif not equal(said, made, EXACT):
        yield name, said, made


def _items(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(one, dict) for one in value)
