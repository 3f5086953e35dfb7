"""When the state is lost: a detector made again of the step counts and signals that were published.

History is absorbed step by step as it once was, so baselines, usual activity, dispersion and siblings' rates come out as
they were, as far as step counts tell. What they do not tell, and what is assumed instead:

- *Rows of steps that were not closed*, their authors and near-duplicate signatures: gone. Whoever rebuilds must let
  detection read again all rows since the start of the first step that is not closed; older ones among them do no harm.
- *Entries of closed steps that were not final*: gone, so these steps are final from here on. What comes late for them
  counts as too late, their counts stay as last published (`provisional` if that is what they were), and spikes name
  evidence and concentration from newer steps only.
- *Severe entries*: of an open severe signal those that it names as evidence, up to five; its voices are told apart by
  their number alone. A single voice of danger that waited for a second one is forgotten.
- *Organic mentions* where the exposure is units, unless ``spoken`` tells them: all mentions. Reposts and rewarded ones only
  count towards the least number of mentions that a spike needs.
- *Quiet mentions*, unless ``spoken`` tells them: organic ones less the voices that object. What names something negative
  without objecting is taken for quiet, so after a rebuild a promotion is judged a little strictly where the exposure is units.
- *Voices that came undated or late* are taken as fresh, so in the windows that still reach them they may open a spike.
- *The catalogue of those days*: the present one is taken for all of the past.
- *Calm steps* of an open spike are counted from none, so it closes up to `close_after - 1` steps later.
- *Closed spikes and gaps* are known only if they are given, and they should be: without them a spike of the past is
  absorbed as if it had been chance (ten days of it raise the rate by a fifth, thirty double it), windows may reach back to
  one that has just closed, and outages count as silence.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, groupby
from typing import NamedTuple

from pipeline.detection.detector import Detector
from pipeline.detection.entries import DANGER, TYPE_INDEX, Entry, UnitKey
from pipeline.detection.lifecycle import RISES, OpenSignal
from pipeline.detection.steps import Steps
from pipeline.detection.voices import UnitTally
from pipeline.errors import TerminalError
from schemas.catalogue import CatalogueEntry
from schemas.control import CatalogueUpdate, Gap, PolicyUpdate
from schemas.policy import DAY_MS, DetectionPolicy
from schemas.signal import Signal
from schemas.step_count import StepCount
from schemas.vocabulary import ANY_OBJECTION, OBJECTION_TYPES

MEMORY_MS = 180 * DAY_MS
"""Step counts older than this have faded to an eighth, and may be left out."""

Tallies = dict[UnitKey, UnitTally]


class Spoken(NamedTuple):
    """What a unit's mentions in one step are, as stored mentions tell it; see `UnitTally`."""

    mentions: int
    organic: int
    quiet: int


SpokenBy = Mapping[tuple[int, UnitKey], Spoken]
"""By step number and unit."""


def rebuild(
    policy: DetectionPolicy,
    catalogue_version: str,
    entries: Iterable[CatalogueEntry],
    step_counts: Iterable[StepCount],
    open_signals: Iterable[Signal],
    watermark: int | None,
    *,
    policy_version: str = "",
    closed_signals: Iterable[Signal] = (),
    gaps: Iterable[Gap] = (),
    spoken: SpokenBy | None = None,
) -> Detector:
    """A detector that goes on where the one that published all this had stood; see above for what it cannot know.

    Its first `changes` are the whole state.

    Args:
        policy: in force; its base step and time zone must be those of the counts.
        catalogue_version: in force.
        entries: of that catalogue.
        step_counts: the latest revision of each cell of this partition's subjects, ascending by ``step_start``. Read once,
            a step at a time. Half a year is enough: what is older has faded to an eighth.
        open_signals: the latest revision of each signal that is not closed.
        watermark: the last one that this partition had come to, ms UTC: rows before it are refused from here on. None: go on
            after the last step that has counts, which is as good, for a step without counts had no rows.
        policy_version: of the policy, as it came in band. Without one, whoever restores the state must give the same base step.
        closed_signals: the latest revision of closed signals, as far back as the counts.
        gaps: as recorded, in any order.
        spoken: of stored mentions; taken where it has as many mentions as the step counts have.

    Raises:
        TerminalError: step counts out of order, or of other base steps than the policy's.
        ConfigurationError: the policy's time zone is unknown.
    """
    steps = Steps(policy.step, policy.time_zone)
    detector = Detector(policy)
    if policy_version:
        detector.absorb(PolicyUpdate(policy_version, policy))
    detector.absorb(CatalogueUpdate(catalogue_version, list(entries)))
    for gap in gaps:
        detector.absorb(gap)
    told = tallies_by_step(step_counts, policy, spoken)
    first = next(told, None)
    history = told if first is None else chain([first], told)
    since = None if watermark is None else steps.index(watermark) - 1
    if first is not None:
        since = first[0]
    signals = [*open_signals, *closed_signals]
    severe = [signal for signal in signals if signal.kind == "severe" and signal.event != "closed"]
    spikes = [signal for signal in signals if signal.kind in RISES]
    opened, closed = _turns(spikes, steps, since)
    following = 0
    for step, tallies in _with_turns(history, opened.keys() | closed.keys()):
        detector.recall(step, tallies, opened=opened.get(step, ()), closed=closed.get(step, ()))
        following = step + 1
    if watermark is not None:
        following = max(following, steps.index(watermark))
    rests = [_severe(signal, steps.start(following), policy) for signal in severe]
    detector.resume(watermark, [held for held, _ in rests], chain.from_iterable(told for _, told in rests))
    return detector


def tallies_by_step(
    step_counts: Iterable[StepCount], policy: DetectionPolicy, spoken: SpokenBy | None = None
) -> Iterator[tuple[int, Tallies]]:
    """The steps that have counts, by number, each with what its units added up to; arguments and errors as `rebuild`."""
    steps, spoken = Steps(policy.step, policy.time_zone), spoken or {}
    for start, counts in groupby(step_counts, key=lambda count: count.step_start):
        step, cells = steps.index(start), _cells(counts)
        lengths = {count.step for cell in cells.values() for count in cell.values()}
        if steps.start(step) != start or lengths != {policy.step}:
            raise TerminalError(
                f"detection.step, time_zone: the step counts are of {', '.join(sorted(lengths))} from {start}, which is no "
                f"step of {policy.step} in {policy.time_zone}"
            )
        yield step, {unit: _tally(cells[unit], spoken.get((step, unit))) for unit in sorted(cells)}


def _cells(counts: Iterable[StepCount]) -> dict[UnitKey, dict[str, StepCount]]:
    """Unit → type → its latest revision."""
    cells: dict[UnitKey, dict[str, StepCount]] = {}
    for count in counts:
        of_unit = cells.setdefault((count.subject_kind, count.subject_id, count.product_batch_id), {})
        known = of_unit.get(count.objection_type)
        if known is None or known.revision < count.revision:
            of_unit[count.objection_type] = count
    return cells


def _tally(cells: dict[str, StepCount], spoken: Spoken | None) -> UnitTally:
    """What a unit's entries in a step added up to; what is assumed stands at the top."""
    voices = tuple(cells[name].count if name in cells else 0 for name in OBJECTION_TYPES)
    # Only `any` is published again when nothing but the mentions has changed.
    whole = cells.get(ANY_OBJECTION) or max(cells.values(), key=lambda count: count.mentions)
    any_voices = whole.count if whole.objection_type == ANY_OBJECTION else max(voices)
    organic = round(whole.exposure) if whole.exposure_kind == "mentions" else whole.mentions
    quiet = max(0, organic - any_voices)
    if spoken is not None and spoken.mentions == whole.mentions:
        _, organic, quiet = spoken
    return UnitTally(
        mentions=whole.mentions,
        organic=organic,
        quiet=quiet,
        known=whole.mentions if whole.product_batch_id else 0,  # of no use once a step is final
        any_voices=any_voices,
        voices=voices,
        fresh=voices,
    )


def _turns(
    spikes: Iterable[Signal], steps: Steps, since: int | None
) -> tuple[dict[int, list[OpenSignal]], dict[int, list[Signal]]]:
    """By step: the spikes that opened and those that closed in it. What began before ``since`` begins then."""
    opened: dict[int, list[OpenSignal]] = {}
    closed: dict[int, list[Signal]] = {}
    for signal in spikes:
        opening = steps.index(signal.opened_step)
        begin = opening if since is None else max(opening, since)
        if signal.event == "closed":
            end = steps.index(signal.step_start)
            if end <= begin:
                continue
            closed.setdefault(end, []).append(signal)
        opened.setdefault(begin, []).append(OpenSignal(signal, voices=signal.voices))
    return opened, closed


def _with_turns(history: Iterable[tuple[int, Tallies]], turns: Iterable[int]) -> Iterator[tuple[int, Tallies]]:
    """The steps that have counts, and between them those in which only a spike opened or closed."""
    waiting = deque(sorted(turns))
    for step, tallies in history:
        while waiting and waiting[0] < step:
            yield waiting.popleft(), {}
        if waiting and waiting[0] == step:
            waiting.popleft()
        yield step, tallies
    yield from ((step, {}) for step in waiting)


def _severe(signal: Signal, closed_before: int, policy: DetectionPolicy) -> tuple[OpenSignal, list[Entry]]:
    """An open severe signal, and stand-ins for the entries of closed steps (before ``closed_before``) that it rests on.

    Harm whose step is not closed yet is as if just said: its row comes again and confirms it.
    """
    told = [(number, one) for number, one in enumerate(signal.evidence) if one.event_time < closed_before]
    last = max((one.event_time for _, one in told), default=signal.step_start)
    held = OpenSignal(signal, voices=signal.voices, settled=bool(told), last_event=max(last, signal.step_start))
    type_index = TYPE_INDEX[signal.objection_type]
    delay = policy.alerting_horizon_ms + 1 if signal.historic else 0
    entries = [
        Entry(
            mention_id=one.mention_id,
            revision=0,
            subject_kind="product",
            subject_id=signal.subject_id,
            product_id=signal.subject_id,
            product_batch_id=signal.product_batch_id,
            event_time=one.event_time,
            ingest_time=one.event_time + delay,
            types=1 << type_index,
            # Evidence begins with the gravest; of the others it is known that they were danger at least.
            severity=signal.severity if number == 0 else DANGER,
            severe_type=type_index,
            intensity=0.0,
            # As many authors as the signal had voices.
            author=f"{signal.signal_id}/{min(number, signal.voices - 1)}",
            signature=0,
            flags=0,
            primary=True,
            version="",
            carrier="",
            region="",
            channel="",
            quotes=(one.quote,),
        )
        for number, one in told
    ]
    return held, entries
