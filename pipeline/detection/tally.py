"""The mentions of steps that are not final yet, and what they add up to.

Counts are a pure function of the set of live entries: neither the order of arrival nor duplicates show. An entry is
keyed by (mention, unit); of two, the higher revision holds, and a void (retraction, deletion, edit) ends all lower ones.
"""

from collections.abc import Iterable
from sys import intern
from typing import NamedTuple

import msgspec

from schemas.scored import Objection, ScoredRow
from schemas.vocabulary import OBJECTING_ACTS, OBJECTION_TYPES

UnitKey = tuple[str, str, str]
"""Subject kind, subject id, lot: what is counted apart. The lot is empty where the subject is no product."""

TYPES = len(OBJECTION_TYPES)
TYPE_INDEX: dict[str, int] = {name: index for index, name in enumerate(OBJECTION_TYPES)}

REPOST, INCENTIVISED, DEFAULT_REVIEW, OBSERVED, BACKFILL, QUIET = 1, 2, 4, 8, 16, 32
FLAG_BITS: dict[str, int] = {
    "repost": REPOST,
    "incentivised": INCENTIVISED,
    "default_review": DEFAULT_REVIEW,
    "observed": OBSERVED,
    "backfill": BACKFILL,
}
NOT_A_VOICE = REPOST | INCENTIVISED | DEFAULT_REVIEW
"""What was not said of the author's own accord is no voice."""
NOT_EXPOSURE = REPOST | INCENTIVISED
"""Left out of the exposure too: a storm in the denominator would dilute the rate, today and in the baseline."""
NEVER_OPENS = OBSERVED | BACKFILL
"""Counts in history, never opens a spike."""

QUOTE_LENGTH = 120
DANGER = 3
"""Severity of danger with nobody hurt: two such voices open a signal."""
HARM = 4
"""Severity of harm: one such voice opens a signal."""


Traits = tuple[UnitKey, int, str, str, int, str, str, str, str]
"""What a row that objects to nothing counts by: the fields of `Calm` from ``unit`` to ``channel``."""


class Entry(msgspec.Struct, array_like=True, gc=False):
    """One scored row as far as detection needs it; ``types`` and ``flags`` are bit sets, times ms UTC."""

    mention_id: str
    revision: int
    subject_kind: str
    subject_id: str
    product_id: str
    product_batch_id: str
    event_time: int
    ingest_time: int
    types: int
    severity: int
    severe_type: int
    intensity: float
    author: str
    signature: int
    flags: int
    primary: bool
    version: str
    carrier: str
    region: str
    channel: str
    quotes: tuple[str, ...] = ()
    dead: bool = False
    step: int = 0
    """Number of the base step that it is counted in, as long as that is not final."""

    @property
    def count(self) -> int:
        """Live rows that it stands for."""
        return not self.dead

    @property
    def unit(self) -> UnitKey:
        """The unit that this entry is counted in."""
        lot = self.product_batch_id if self.subject_kind == "product" else ""
        return (self.subject_kind, self.subject_id, lot)

    @property
    def of_nothing(self) -> bool:
        """Whether the product is unknown."""
        return self.subject_kind == "product" and not self.subject_id

    @property
    def traits(self) -> Traits:
        """What it counts by if it objects to nothing."""
        return (
            self.unit,
            self.revision,
            self.product_id,
            self.product_batch_id,
            self.flags,
            self.version,
            self.carrier,
            self.region,
            self.channel,
        )

    @property
    def grave(self) -> bool:
        """Whether the severity path looks at it."""
        return self.severity >= DANGER and self.primary and not self.flags & NOT_A_VOICE

    @property
    def speaks(self) -> bool:
        """Whether it is a voice against anything, or grave; else it only adds to counts."""
        return self.types != 0 or self.grave

    def objects_to(self, type_index: int) -> bool:
        """Whether this is a voice against that type."""
        return not self.dead and bool(self.types >> type_index & 1)

    def quote_of(self, type_index: int) -> str:
        """The words that justify the type; empty where the row carried no text."""
        if not self.quotes:
            return ""
        position = (self.types & ((1 << type_index) - 1)).bit_count()
        return self.quotes[min(position, len(self.quotes) - 1)]


class Calm(msgspec.Struct, gc=False):
    """The rows of one step that object to nothing and are alike in all that they count by.

    They are most rows, and days of them are held: each as an entry of its own would take a multiple of the memory.
    """

    step: int
    unit: UnitKey
    revision: int
    product_id: str
    product_batch_id: str
    flags: int
    version: str
    carrier: str
    region: str
    channel: str
    count: int = 0
    """Live rows that it stands for."""

    def objects_to(self, type_index: int) -> bool:
        """Never."""
        return False


Row = Entry | Calm


def entry_of(row: ScoredRow) -> Entry:
    """The entry of a row: which types it is a voice against, and what it may be evidence for."""
    flags = named = 0
    for flag in row.flags:
        flags |= FLAG_BITS[flag]
    negative = [objection for objection in row.objections if objection.polarity == "negative"] if row.objections else []
    for objection in negative:
        named |= 1 << TYPE_INDEX[objection.type]
    if not named and not flags & NOT_A_VOICE:
        flags |= QUIET
    voice = named and row.speech_act in OBJECTING_ACTS and not flags & NOT_A_VOICE
    types = named if voice else 0
    return Entry(
        row.mention_id,
        row.revision,
        row.subject_kind,
        intern(row.subject_id),
        intern(row.product_id),
        intern(row.product_batch_id),
        row.event_time,
        row.ingest_time,
        types,
        row.severity,
        (named & -named).bit_length() - 1 if named else 0,
        row.intensity,
        row.author,
        row.near_duplicate_signature,
        flags,
        row.primary,
        intern(row.version),
        intern(row.carrier),
        intern(row.region),
        intern(row.channel),
        _quotes(row, types, negative) if row.text and (types or row.severity >= DANGER) else (),
    )


def _quotes(row: ScoredRow, types: int, negative: list[Objection]) -> tuple[str, ...]:
    """One quote a voiced type, in the order of the types; without one, the words of the first objection or the start."""
    first: dict[int, str] = {}
    for objection in negative:
        first.setdefault(TYPE_INDEX[objection.type], quote(row.text, *objection.span))
    if not types:
        return (first[min(first)] if first else quote(row.text, 0, 0),)
    return tuple(first[index] for index in sorted(first))


def quote(text: str, start: int, end: int) -> str:
    """At most ``QUOTE_LENGTH`` characters of the text around a span, on one line."""
    if len(text) > QUOTE_LENGTH:
        margin = max(0, QUOTE_LENGTH - (end - start)) // 2
        start = max(0, min(start - margin, len(text) - QUOTE_LENGTH))
        text = text[start : start + QUOTE_LENGTH]
    return text.replace("\r", " ").replace("\n", " ")


def voices(said: list[tuple[str, int]]) -> int:
    """Distinct voices among (author, near-duplicate signature): connected components of the author-signature graph.

    Two entries are one voice when they share an author, or a text that differs in names and numbers only, directly or
    through others. An empty author and a signature of 0 connect to nothing.
    """
    if len(said) < 2:
        return len(said)
    authors = [author for author, _ in said if author]
    signatures = [signature for _, signature in said if signature]
    if len(set(authors)) == len(authors) and len(set(signatures)) == len(signatures):
        return len(said)
    return _components(said)


def _components(said: list[tuple[str, int]]) -> int:
    parent = list(range(len(said)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    seen: dict[str | int, int] = {}
    count = len(said)
    for node, keys in enumerate(said):
        for key in keys:
            if not key:
                continue
            one, other = root(seen.setdefault(key, node)), root(node)
            if one != other:
                parent[other] = one
                count -= 1
    return count


def said_by(entries: Iterable[Entry]) -> list[tuple[str, int]]:
    """What tells the voices of entries apart."""
    return [(entry.author, entry.signature) for entry in entries]


class UnitTally(NamedTuple):
    """What one unit's live entries in one step add up to."""

    mentions: int
    organic: int
    """Mentions of the customers' own accord: no reposts, no rewarded ones."""
    quiet: int
    """Organic mentions that name nothing negative and are no default review: the pulse of sales."""
    known: int
    """Mentions whose lot is known."""
    any_voices: int
    voices: tuple[int, ...]
    """Distinct voices a type, history included."""
    fresh: tuple[int, ...]
    """The same without what was observed undated or backfilled: what may open a spike."""


def tabulate(rows: Iterable[Row]) -> UnitTally:
    """Add up one unit's rows of one step."""
    mentions = organic = quiet = known = 0
    objecting: list[Entry] = []
    for row in rows:
        count, flags = row.count, row.flags
        mentions += count
        organic += count * (not flags & NOT_EXPOSURE)
        quiet += count * bool(flags & QUIET)
        known += count * (row.product_batch_id != "")
        if isinstance(row, Entry) and row.types and count:
            objecting.append(row)
    if not objecting:
        return UnitTally(mentions, organic, quiet, known, 0, _NO_VOICES, _NO_VOICES)
    every = _voices_by_type(objecting)
    fresh_only = [entry for entry in objecting if not entry.flags & NEVER_OPENS]
    fresh = every if len(fresh_only) == len(objecting) else _voices_by_type(fresh_only)
    return UnitTally(mentions, organic, quiet, known, voices(said_by(objecting)), every, fresh)


_NO_VOICES = (0,) * TYPES


def _voices_by_type(objecting: list[Entry]) -> tuple[int, ...]:
    said: list[list[tuple[str, int]]] = [[] for _ in range(TYPES)]
    for entry in objecting:
        remaining = entry.types
        while remaining:
            lowest = remaining & -remaining
            said[lowest.bit_length() - 1].append((entry.author, entry.signature))
            remaining ^= lowest
    return tuple(map(voices, said))


class OpenStep:
    """The rows of one step that is not final."""

    __slots__ = ("calm", "dirty", "mentions", "severe", "units", "unsaved", "unsaved_calm")

    def __init__(self) -> None:
        self.units: dict[UnitKey, list[Row]] = {}
        self.calm: dict[Traits, Calm] = {}
        self.severe: list[Entry] = []
        """Entries that may take the severity path."""
        self.mentions: list[str] = []
        """Mentions with a row in it, or that had one."""
        self.dirty: set[UnitKey] = set()
        """Units whose rows changed since they were last tabulated."""
        self.unsaved: list[Entry] = []
        """Entries that no state record holds yet …"""
        self.unsaved_calm: dict[Traits, list[str]] = {}
        """… and mentions with such a calm row."""


UNDECIDED = -1
"""Tag of a void that no step has closed after."""


FURTHEST_AHEAD = 64
"""Steps ahead of the watermark up to which a row is expected; one wrong date must not keep voids for ever."""


class Tally:
    """All live rows of the steps that are not final, by step and unit and by mention."""

    def __init__(self) -> None:
        self.steps: dict[int, OpenStep] = {}
        self._mentions: dict[str, tuple[Row, ...]] = {}
        self.voids: dict[str, tuple[int, int]] = {}
        """Mention → revision below which nothing holds, and the step with which the void may be forgotten."""
        self.latest = -(1 << 40)
        """Latest step that any row was of, taken in or not."""
        self.unsaved_voids: set[int] = set()
        """Tags whose voids changed since they were last saved."""

    def add(self, entry: Entry, step: int) -> bool:
        """Take an entry in, unless it is known or void. Returns whether it was taken in."""
        self.latest = max(self.latest, step)
        if entry.revision:
            self.void(entry.mention_id, entry.revision)  # an edit ends what was counted before, in whatever unit
        if entry.of_nothing and not (entry.grave and entry.severity >= HARM):
            return False  # an unknown product has no rate, and takes the severity path with harm only
        if self._is_void(entry.mention_id, entry.revision):
            return False
        known = self._mentions.get(entry.mention_id)
        if known is not None:
            unit = entry.unit
            if any(other.unit == unit and other.revision >= entry.revision for other in known):
                return False
        entry.step, open_step = step, self._open(step)
        if entry.speaks:
            open_step.unsaved.append(entry)
            self._take(entry, open_step)
        else:
            traits = entry.traits
            open_step.unsaved_calm.setdefault(traits, []).append(entry.mention_id)
            self._count(entry.mention_id, traits, open_step, step)
        return True

    def restore(self, entry: Entry, step: int) -> None:
        """Take back in what a state record holds, unless a void has ended it since."""
        if not self._is_void(entry.mention_id, entry.revision):
            entry.step = step
            self._take(entry, self._open(step))

    def restore_calm(self, mention_ids: Iterable[str], traits: Traits, step: int) -> None:
        """The same of calm rows that are alike."""
        _, revision, *_ = traits
        for mention_id in mention_ids:
            if not self._is_void(mention_id, revision):
                self._count(mention_id, traits, self._open(step), step)

    def _is_void(self, mention_id: str, revision: int) -> bool:
        void = self.voids.get(mention_id) if self.voids else None
        return void is not None and revision < void[0]

    def _open(self, step: int) -> OpenStep:
        open_step = self.steps.get(step)
        if open_step is None:
            open_step = self.steps[step] = OpenStep()
        return open_step

    def _take(self, entry: Entry, open_step: OpenStep) -> None:
        """Hold an entry as it is."""
        self._link(entry.mention_id, entry, open_step)
        if entry.grave:
            open_step.severe.append(entry)
        if entry.of_nothing:
            return
        open_step.units.setdefault(entry.unit, []).append(entry)
        open_step.dirty.add(entry.unit)

    def _count(self, mention_id: str, traits: Traits, open_step: OpenStep, step: int) -> None:
        """Hold a calm row as one of those that are alike to it."""
        calm = open_step.calm.get(traits)
        if calm is None:
            calm = open_step.calm[traits] = Calm(step, *traits)
            open_step.units.setdefault(calm.unit, []).append(calm)
        calm.count += 1
        self._link(mention_id, calm, open_step)
        open_step.dirty.add(calm.unit)

    def _link(self, mention_id: str, row: Row, open_step: OpenStep) -> None:
        known = self._mentions.get(mention_id)
        self._mentions[mention_id] = (row,) if known is None else (*known, row)
        if known is None or all(other.step != row.step for other in known):
            open_step.mentions.append(mention_id)

    def void(self, mention_id: str, revision: int, tag: int = UNDECIDED) -> None:
        """What was counted of the mention with a lower revision is void; so is what still comes of it."""
        void = self.voids.get(mention_id)
        if void is not None:
            if void[0] >= revision:
                return
            self.unsaved_voids.add(void[1])
        self.voids[mention_id] = (revision, tag)
        self.unsaved_voids.add(tag)
        known = self._mentions.get(mention_id, ())
        for row in known:
            if row.revision < revision:
                if isinstance(row, Entry):
                    row.dead = True
                else:
                    row.count -= 1
                open_step = self.steps[row.step]
                if row.unit in open_step.units:
                    open_step.dirty.add(row.unit)
        self._keep(mention_id, tuple(row for row in known if row.revision >= revision))

    def _keep(self, mention_id: str, rows: tuple[Row, ...]) -> None:
        """These rows of the mention are left."""
        if rows:
            self._mentions[mention_id] = rows
        else:
            self._mentions.pop(mention_id, None)

    def settle_voids(self, step: int) -> None:
        """After a step closed: fix until when the voids before it are needed.

        A row that they concern may come again as long as its step is open, and rows may run ahead of the watermark.
        """
        undecided = [mention for mention, (_, tag) in self.voids.items() if tag == UNDECIDED]
        if not undecided:
            return
        last = max(step, min(self.latest, step + FURTHEST_AHEAD))
        for mention in undecided:
            self.voids[mention] = (self.voids[mention][0], last)
        self.unsaved_voids.update((UNDECIDED, last))

    def forget(self, step: int) -> None:
        """The step is final: drop its rows."""
        open_step = self.steps.pop(step, None)
        if open_step is not None:
            for mention_id in open_step.mentions:
                self._keep(mention_id, tuple(row for row in self._mentions.get(mention_id, ()) if row.step != step))

    def forget_voids(self, final_before: int) -> None:
        """Drop the voids that no step which still takes corrections needs."""
        gone = [mention for mention, (_, tag) in self.voids.items() if tag != UNDECIDED and tag < final_before]
        for mention in gone:
            self.unsaved_voids.add(self.voids.pop(mention)[1])
