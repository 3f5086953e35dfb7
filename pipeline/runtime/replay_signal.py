"""``complaint-radar replay SIGNAL_ID``: a signal made again of what is stored, and whether it comes out equal.

What was decided by which rules stands in a signal's versions. A policy is looked up by its version in the configuration, in
the state of the data folder, and in a configuration file of then if one is named; a catalogue in the first two and on
its topic, which keeps all versions.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from connectors.catalogue import read_catalogue
from pipeline.detection.rebuild import Spoken
from pipeline.detection.replay import Replayed, Rules, Stored, replay, span
from pipeline.detection.snapshot import Snapshot
from pipeline.detection.steps import Steps
from pipeline.errors import ConfigurationError, RadarError
from pipeline.runtime.catalogues import Catalogues, version_of
from pipeline.runtime.checkpoint import SqliteCheckpoint
from pipeline.runtime.embedded import CHECKPOINT_FILE
from pipeline.settings import KafkaSettings, Settings
from pipeline.storage import history
from pipeline.storage.engine import Query
from pipeline.storage.history import Subject, Talk
from schemas.catalogue import CatalogueEntry
from schemas.policy import DetectionPolicy
from schemas.signal import Signal

EXIT_CODES = {"equal": 0, "differs": 1, "untold": 2}

_HEADS = {
    "differs": "what differs:",
    "untold": "what cannot be told:",
    "remark": "what history alone would have made a little different:",
}


class KnownRules(NamedTuple):
    """Policies and catalogues by version, as far as they can be had."""

    policies: dict[str, DetectionPolicy]
    catalogues: dict[str, Sequence[CatalogueEntry]]
    brokers: KafkaSettings | None = None
    """Whose catalogue topic has the others."""

    def of(self, signal: Signal) -> Rules:
        """The rules that a signal names.

        Raises:
            ConfigurationError: the policy is not known.
        """
        policy, catalogue = _named(signal, "policy"), _named(signal, "catalogue")
        if policy not in self.policies:
            have = ", ".join(sorted(self.policies)) or "none"
            raise ConfigurationError(
                f"--policy: the signal was decided by policy {policy or 'without a version'}, and known are: {have}; "
                "name the configuration file of then"
            )
        return Rules(self.policies[policy], policy, self._catalogue(catalogue), catalogue)

    def _catalogue(self, version: str) -> Sequence[CatalogueEntry] | None:
        if not version:
            return []
        if version not in self.catalogues and self.brokers is not None:
            try:
                return Catalogues(self.brokers).entries(version)
            except RadarError:  # not there, or the brokers are not: then it is unknown, and that is said
                return None
        return self.catalogues.get(version)


def known_rules(settings: Settings | None, data_dir: Path, then: Settings | None = None) -> KnownRules:
    """The rules of the configuration, of the data folder's state, and of a configuration of then.

    Raises:
        ConfigurationError: a catalogue file is wrong.
        TerminalError: the state cannot be read.
    """
    policies: dict[str, DetectionPolicy] = {}
    catalogues: dict[str, Sequence[CatalogueEntry]] = {}
    for one in (settings, then):
        if one is not None:
            policies[version_of(one.policy())] = one.policy()
            if one.catalogue is not None and one.catalogue.is_file():
                entries = read_catalogue(one.catalogue, one.time_zone)
                catalogues[version_of(entries)] = entries
    if (data_dir / CHECKPOINT_FILE).is_file():
        checkpoint = SqliteCheckpoint(data_dir / CHECKPOINT_FILE)
        try:
            known = Snapshot.read(DetectionPolicy(), checkpoint.state()).known
        finally:
            checkpoint.close()
        policies.setdefault(known.policy_version, known.policy)
        catalogues.setdefault(
            known.catalogue_version,
            [
                CatalogueEntry(product, product, [], lot, told.units, told.sold_from, told.sold_until)
                for product, lots in known.catalogue.items()
                for lot, told in lots.items()
            ],
        )
    return KnownRules(policies, catalogues, settings.kafka if settings else None)


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


def _named(signal: Signal, what: str) -> str:
    """The version of the policy or catalogue that a signal names; empty if none."""
    found = [word.partition("=")[2] for word in signal.versions.split() if word.startswith(f"{what}=")]
    return found[-1] if found else ""


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
        heads["equal"] = "equal, from the state that it opened from"
    lines = [heads[replayed.verdict]]
    for kind, head in _HEADS.items():
        words = [f"  {finding.words}" for finding in replayed.findings if finding.kind == kind]
        lines += [head, *words] if words else []
    if replayed.confirmed:
        lines += ["what holds:", *(f"  {one}" for one in replayed.confirmed)]
    if replayed.losses:
        lines += ["what is stored is no longer all that detection had:", *(f"  {one}" for one in replayed.losses)]
    return lines
