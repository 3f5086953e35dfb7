"""What was refused: to list, to show, and to mark as replayed."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import msgspec

from pipeline.errors import TerminalError
from pipeline.storage.engine import Engine, Query, QueryError, literal
from pipeline.storage.rows import DeadLetterReplay
from schemas.dead_letter import DeadLetter, DeadLetterReason

State = Literal["waiting", "replayed"]

_COLUMNS = (
    "dead_letter_id, source_id, stage, reason, detail, locator, payload, payload_hash, "
    "toUnixTimestamp64Milli(time) AS time, toUnixTimestamp64Milli(replayed_at) AS replayed_at, state"
)


MAX_REPLAYED = 100_000
"""Dead letters that one replay takes; call it again for more."""


class Asked(NamedTuple):
    """A dead letter that is to be read again."""

    dead_letter_id: str
    source_id: str
    locator: str
    payload_hash: str


class StoredDeadLetter(DeadLetter, frozen=True):
    """A dead letter and what became of it."""

    replayed_at: int | None = None
    state: State = "waiting"


def list_dead_letters(
    query: Query,
    *,
    limit: int = 100,
    reason: str | None = None,
    source: str | None = None,
    state: State | None = None,
) -> list[StoredDeadLetter]:
    """Dead letters, the newest first, at most ``limit``; each of the other arguments narrows them.

    Raises:
        QueryError: a reason or state that there is not.
    """
    _one_of("reason", reason, get_args(DeadLetterReason))
    _one_of("state", state, get_args(State))
    asked = {"reason": reason, "source_id": source, "state": state}
    where = " AND ".join(f"d.{name} = {literal(value)}" for name, value in asked.items() if value is not None)
    return _read(
        query,
        f"SELECT {_COLUMNS} FROM v_dead_letters AS d WHERE {where or '1'} "
        f"ORDER BY d.time DESC, d.dead_letter_id LIMIT {int(limit)}",
    )


def show_dead_letter(query: Query, dead_letter_id: str) -> StoredDeadLetter:
    """One dead letter by its id, or by as much of its beginning as no other has.

    Raises:
        TerminalError: none begins so, or several do.
    """
    found = _read(
        query,
        f"SELECT {_COLUMNS} FROM v_dead_letters AS d WHERE startsWith(d.dead_letter_id, {literal(dead_letter_id)}) "
        "ORDER BY d.dead_letter_id LIMIT 2",
    )
    if not found or not dead_letter_id:
        raise TerminalError(f"no dead letter {dead_letter_id}")
    if len(found) > 1:
        raise TerminalError(f"more than one dead letter begins with {dead_letter_id}")
    return found[0]


def to_read_again(
    query: Query, identities: Sequence[str], reason: str | None, source: str | None
) -> tuple[list[Asked], int]:
    """Dead letters that can be read again at their source, and how many others were chosen that cannot.

    Args:
        query: of the database.
        identities: ids or their beginnings; none: all that wait.
        reason: only those with it.
        source: only those of it.
    """
    found = list_dead_letters(
        query, limit=MAX_REPLAYED, reason=reason, source=source, state=None if identities else "waiting"
    )
    chosen = [one for one in found if not identities or one.dead_letter_id.startswith(tuple(identities))]
    asked = [
        Asked(one.dead_letter_id, one.source_id, one.locator, one.payload_hash)
        for one in chosen
        if one.stage == "connector"
    ]
    return asked, len(chosen) - len(asked)


def mark_replayed(engine: Engine, dead_letter_ids: Sequence[str], now: int) -> None:
    """Note that these were sent back to their start at ``now``, ms UTC. Errors as ``Engine.insert``."""
    replays = [DeadLetterReplay(one, now) for one in dead_letter_ids]
    engine.insert("dead_letter_replays", replays)


def _read(query: Query, sql: str) -> list[StoredDeadLetter]:
    return [msgspec.json.decode(line, type=StoredDeadLetter, strict=False) for line in query(sql).splitlines()]


def _one_of(name: str, value: str | None, allowed: Sequence[str]) -> None:
    if value is not None and value not in allowed:
        raise QueryError(f"no {name} {value!r}: take one of {', '.join(allowed)}")
