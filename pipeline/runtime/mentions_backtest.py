"""A file of mentions, replayed through the whole path under one policy or several: read, masked, scored, detected.

The records are read as ``run`` reads those of a configured source, so what comes late or twice, reposts, edits and harm
count as they do live; every kind of signal is told, and of every subject. Nothing is stored. The history is taken for
complete: its last steps are decided too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from connectors import records
from connectors.configured import sources
from pipeline.detection.detector import Detector, Outputs
from pipeline.errors import ConfigurationError, TransientError
from pipeline.runtime.intake import Block, Intake
from pipeline.runtime.known_rules import Present
from pipeline.runtime.preflight import check_sources
from pipeline.runtime.trial import Progress, Trial, start_of
from pipeline.scoring.scorer import Scorer
from pipeline.settings import FilesSourceSettings, Settings
from schemas.control import CatalogueUpdate, ControlRecord, Watermark
from schemas.policy import DetectionPolicy
from schemas.scored import ScoredBlock
from schemas.vocabulary import ANY_OBJECTION

BLOCK_SIZE = 2000
"""Mentions scored and detected at once."""


class Played(NamedTuple):
    """What came of it."""

    trials: list[Trial]
    """One a policy, in their order."""
    mentions: int
    refused: int
    """Records that could not be taken in."""


class _Line:
    """One policy, its detector, and what it says."""

    def __init__(self, policy: DetectionPolicy, present: Present, since: str | None) -> None:
        self.trial = Trial(policy, 0 if since is None else start_of(since, policy.time_zone))
        self._first = since is None
        self._detector = Detector(policy)
        self.take(CatalogueUpdate(present.catalogue_version, list(present.catalogue)))

    def take(self, record: ScoredBlock | ControlRecord) -> None:
        """One record of the stream."""
        if isinstance(record, ScoredBlock) and record.rows:
            self._span(min(row.event_time for row in record.rows), max(row.event_time for row in record.rows))
        self._gather(self._detector.absorb(record))

    def close(self) -> Trial:
        """The history is at its end."""
        self._gather(self._detector.close_all())
        return self.trial

    def _span(self, first: int, last: int) -> None:
        trial, steps = self.trial, self.trial.steps
        if self._first:  # rows come ascending by event time, but for late ones
            trial.since, self._first = steps.start(steps.index(first)), False
        trial.until = max(trial.until, steps.end(steps.index(last)))

    def _gather(self, outputs: Outputs) -> None:
        for signal in outputs.signals:
            self.trial.take(signal)
        for one in outputs.step_counts:
            if one.objection_type != ANY_OBJECTION:
                unit = (one.subject_kind, one.subject_id, one.product_batch_id)
                self.trial.voices.setdefault((unit, one.objection_type), {})[one.step_start] = one.count


def run(
    path: Path,
    present: Present,
    policies: Sequence[DetectionPolicy],
    *,
    source: str | None = None,
    since: str | None = None,
    progress: Progress = lambda done, lines: None,
) -> Played:
    """Replay a file under policies; it is read and scored once.

    Args:
        path: CSV or JSON lines, plain or .gz.
        present: the configuration, its sources and its catalogue.
        policies: tried.
        source: whose mapping the records have; need not be named if there is but one.
        since: the day from which signals are told; what is before is history. None: the first day.
        progress: told how many mentions are done, of how many lines in the file.

    Raises:
        ConfigurationError: the file, or there is no such source.
        TransientError: the file is damaged.
    """
    if not path.is_file():
        raise ConfigurationError(f"--mentions: {path} is no file")
    settings = present.settings.model_copy(update={"sources": (_source(present.settings, source).over(path),)})
    key = b"of one run"  # pseudonyms tell authors apart, and are not kept
    found = sources(settings, (entry.product_batch_id for entry in present.catalogue), key, complete=True)
    for policy in policies:
        detection = settings.detection.model_copy(update={"step": policy.step})
        check_sources(found, settings.model_copy(update={"detection": detection}))
    intake, scorer = Intake(found, {}), Scorer(present.catalogue, sentiment=settings.scoring.sentiment)
    lines = [_Line(policy, present, since) for policy in policies]
    mentions = refused = 0
    total = _line_count(path)
    for block in intake.blocks(BLOCK_SIZE, lambda: False):
        mentions, refused = mentions + len(block.mentions), refused + len(block.dead_letters)
        for record in _scored(block, scorer):
            for line in lines:
                line.take(record)
        progress(mentions + refused, total)
    if intake.failed:
        raise TransientError("; ".join(map(str, intake.failed.values())))
    if not mentions:
        raise ConfigurationError(f"--mentions: {path} holds no mention that could be taken in; refused were {refused}")
    trials = [line.close() for line in lines]
    if since is not None and all(trial.until <= trial.since for trial in trials):
        raise ConfigurationError(f"--since: {path} holds no mentions since {since}")
    return Played(trials, mentions, refused)


def _source(settings: Settings, name: str | None) -> FilesSourceSettings:
    have = ", ".join(one.name for one in settings.sources)
    if not have:
        raise ConfigurationError(
            "sources: the configuration names none, so it is not known which column of --mentions is what; the README shows one"
        )
    if name is None and len(settings.sources) == 1:
        return settings.sources[0]
    found = [one for one in settings.sources if one.name == name]
    if not found:
        asked = "is needed, as there are several sources" if name is None else f"{name!r} is no source"
        raise ConfigurationError(f"--source: {asked}; the configuration has: {have}")
    return found[0]


def _scored(block: Block, scorer: Scorer) -> list[ScoredBlock | ControlRecord]:
    """A block as detection gets it."""
    found: list[ScoredBlock | ControlRecord] = [scorer.scored(block.mentions), *block.gaps]
    return found if block.watermark is None else [*found, Watermark("", block.watermark)]


def _line_count(path: Path) -> int:
    try:
        with records.open_file(path) as file:
            return sum(part.count(b"\n") for part in iter(lambda: file.read(1 << 20), b""))
    except OSError as error:
        raise ConfigurationError(f"--mentions: {path} cannot be read: {error.strerror or error}") from None
