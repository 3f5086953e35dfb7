"""``complaint-radar replay SIGNAL_ID``: a signal made again of what is stored, and whether it comes out equal."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from pipeline.detection.rebuild import Spoken
from pipeline.detection.replay import replay, span
from pipeline.detection.replayed import Finding, Replayed, Stored
from pipeline.detection.steps import Steps
from pipeline.errors import ConfigurationError
from pipeline.runtime.known_rules import KnownRules
from pipeline.storage import history
from pipeline.storage.engine import Query
from pipeline.storage.history import Subject, Talk
from schemas.policy import DetectionPolicy
from schemas.signal import Signal

EXIT_CODES = {"equal": 0, "differs": 1, "untold": 2}

_HEADS = {
    "differs": "what differs:",
    "untold": "what cannot be told:",
    "remark": "remarks: what differs only as its history is no longer whole, or as of several on one day another came first:",
}


def replay_signal(query: Query, identity: str, known: KnownRules, say: Callable[[str], None]) -> int:
    """Make a signal again and say what came of it; the exit code: 0 equal, 1 it differs, 2 that cannot be told.

    Args:
        query: of the database.
        identity: of the signal, or as much of its beginning as no other has.
        known: rules.
        say: is given each line.

    Raises:
        ConfigurationError: there is no such signal, or its policy is not known.
        TerminalError, TransientError: the database, or what is stored does not fit together.
    """
    revisions = history.signals(query, identity) if identity else []
    if not revisions:
        raise ConfigurationError(f"SIGNAL_ID: no stored signal begins with {identity!r}")
    if len({one.signal_id for one in revisions}) > 1:
        raise ConfigurationError(f"SIGNAL_ID: more than one stored signal begins with {identity!r}")
    opening = revisions[0]
    rules = known.of(opening)
    stored = _read(query, revisions, rules.policy)
    say(f"{opening.signal_id}  {_what(opening)}")
    say(
        f"made again of {len(stored.before)} step counts of its history, {len(stored.counts)} of the replayed steps, "
        f"{len(stored.rows)} mentions, policy {rules.policy_version or '-'}, catalogue {rules.catalogue_version or '-'}"
    )
    replayed = replay(stored, rules)
    for line in _told(replayed, len(revisions)):
        say(line)
    return EXIT_CODES[replayed.verdict]


def _read(query: Query, revisions: Sequence[Signal], policy: DetectionPolicy) -> Stored:
    subject = Subject(revisions[0].subject_kind, revisions[0].subject_id)
    spikes = history.spikes(query, subject)
    since, until = span(revisions, spikes, policy)
    return Stored(
        revisions=revisions,
        spikes=spikes,
        before=list(history.step_counts_in_parts(query, 0, since, subject=subject)),
        counts=history.step_counts(query, since, until, subject=subject, latest=False),
        spoken=_spoken(history.talk(query, subject, 0, since), subject, policy),
        rows=history.mentions(query, subject, since, until),
        gaps=history.gaps(query),
    )


def _spoken(
    talk: Iterable[Talk], subject: Subject, policy: DetectionPolicy
) -> dict[tuple[int, tuple[str, str, str]], Spoken]:
    """Quarters of an hour added up to steps."""
    steps = Steps(policy.step, policy.time_zone)
    found: dict[tuple[int, tuple[str, str, str]], Spoken] = {}
    for one in talk:
        key = (steps.index(one.start), (*subject, one.product_batch_id))
        before = found.get(key, Spoken(0, 0, 0))
        found[key] = Spoken(before.mentions + one.mentions, before.organic + one.organic, before.quiet + one.quiet)
    return found


def _what(signal: Signal) -> str:
    about = " ".join(filter(None, (signal.subject_kind, signal.subject_id or "?", signal.product_batch_id)))
    return f"{signal.kind}: {signal.objection_type} of {about}"


def _told(replayed: Replayed, revisions: int) -> list[str]:
    """The verdict first, then what it rests on."""
    heads = {
        "equal": f"equal: all of its revisions ({revisions}) come out again",
        "differs": "it differs",
        "untold": "cannot be told: nothing contradicts it, and not all of it could be made again",
    }
    if replayed.verdict == "equal" and replayed.findings:
        heads["equal"] += ", but for the remarks below"
    lines = [heads[replayed.verdict]]
    for kind, head in _HEADS.items():
        found = [one for one in replayed.findings if one.kind == kind]
        lines += [head, *_by_revision(found)] if found else []
    if replayed.confirmed:
        lines += ["what holds:", *(f"  {one}" for one in replayed.confirmed)]
    if replayed.losses:
        lines += ["what is stored is no longer all that detection had:", *(f"  {one}" for one in replayed.losses)]
    return lines


def _by_revision(findings: Sequence[Finding]) -> Iterator[str]:
    """What is inside the opening state is named only where nothing else is."""
    for of, group in groupby(findings, key=lambda one: one.of):
        every = list(group)
        plain = [one for one in every if not one.words.startswith("opening_state.")] or every
        yield from [f"  {of}:"] if of else []
        yield from (f"  {'  ' if of else ''}{one.words}" for one in plain)
        if len(plain) < len(every):
            yield f"    and {len(every) - len(plain)} numbers inside its opening state"
