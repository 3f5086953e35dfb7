"""What a replay is given, and what comes of it in words."""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from pipeline.detection.rebuild import SpokenBy
from schemas.catalogue import CatalogueEntry
from schemas.control import Gap
from schemas.policy import DetectionPolicy
from schemas.scored import ScoredRow
from schemas.signal import Signal
from schemas.step_count import StepCount

EXACT = 1e-9
"""Relative difference of numbers that are equal."""

Kind = Literal["differs", "untold", "remark"]
Show = Callable[[Any], str]


class Rules(NamedTuple):
    """What the signal was decided by, as its versions name it."""

    policy: DetectionPolicy
    policy_version: str
    catalogue: Sequence[CatalogueEntry] | None
    """None: unknown."""
    catalogue_version: str


class Stored(NamedTuple):
    """What is stored of a signal and its subject; see `span` for the times."""

    revisions: Sequence[Signal]
    """Of the signal, ascending."""
    spikes: Sequence[Signal]
    """All revisions of all spikes and ramps of the subject, ascending."""
    before: Sequence[StepCount]
    """The latest revision of the subject's cells before the span, ascending by step."""
    counts: Sequence[StepCount]
    """Every revision of its cells in the span, ascending by step and revision."""
    spoken: SpokenBy
    """What its mentions before the span are."""
    rows: Sequence[ScoredRow]
    """Its rows in the span, ascending by event time."""
    gaps: Sequence[Gap] = ()


class Finding(NamedTuple):
    """One thing that is not as it should be."""

    kind: Kind
    words: str
    of: str = ""
    """Of which revision of the signal; empty: of none in particular."""


@dataclass
class Replayed:
    """What came of a replay."""

    findings: list[Finding] = field(default_factory=list)
    confirmed: list[str] = field(default_factory=list)
    """What was asked by itself, and holds, in words."""
    losses: list[str] = field(default_factory=list)
    """What is stored and known to be no longer what detection had, in words."""

    @property
    def verdict(self) -> Literal["equal", "differs", "untold"]:
        """``untold``: nothing contradicts the signal, and not all of it could be made again."""
        kinds = {finding.kind for finding in self.findings}
        return "differs" if "differs" in kinds else "untold" if "untold" in kinds else "equal"

    def add(self, kind: Kind, words: str, of: str = "") -> None:
        """One more finding."""
        self.findings.append(Finding(kind, words, of))


def equal(one: Any, other: Any, relative: float) -> bool:
    """Whether values are equal, numbers but for a relative difference."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(equal(*pair, relative) for pair in zip(one, other, strict=True))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= relative * max(abs(one), abs(other))
    return bool(one == other)


def word(value: Any) -> str:
    """A field's value."""
    if isinstance(value, list | tuple):
        return ", ".join(map(word, value)) or "nothing"
    if isinstance(value, dict):  # evidence or a driver, by what it is of
        return str(value.get("mention_id", "")) or f"{value.get('dimension')} {value.get('value')}"
    return f"{value:.6g}" if isinstance(value, float) else "nothing" if value is None else str(value)


def shown(policy: DetectionPolicy) -> Show:
    """What writes a step's start (ms UTC) as the policy's days or hours."""
    zone, form = ZoneInfo(policy.time_zone), "%Y-%m-%d" if policy.step == "1d" else "%Y-%m-%d %H:%M"
    return lambda start: dt.datetime.fromtimestamp(start / 1000, zone).strftime(form)
