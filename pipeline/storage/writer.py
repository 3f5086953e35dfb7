"""A block of rows into a table, whatever single rows are worth.

A block that the engine (or the encoder) rejects because of a row is halved until the bad rows stand alone; they become
dead letters and all others are written. The halves are blocks of their own, cut the same way each time, so a repeated call
writes nothing twice.
"""

import time
from collections.abc import Callable, Sequence
from operator import attrgetter

import msgspec
from msgspec import Struct

from pipeline.errors import InvalidMessage, TerminalError, TransientError
from pipeline.storage.engine import Engine
from pipeline.storage.rows import TABLES
from schemas.dead_letter import DeadLetter
from schemas.identity import content_hash, dead_letter_id

MAX_POISON_ROWS = 100
"""More bad rows in one block are no bad rows: rows and tables do not agree."""

PAYLOAD_CHARACTERS = 16 * 1024 // 4
"""Cut of a dead letter's payload; four bytes a character at most, so never more than 16 KB."""

TRIES = 6
_FIRST_PAUSE_SECONDS = 0.1


def write_block(
    engine: Engine,
    table: str,
    structs: Sequence[Struct],
    *,
    generation: int = 0,
    tries: int = TRIES,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> list[DeadLetter]:
    """Write the block; on return every row is on disk or among the dead letters given back.

    A transient error is tried again, with pauses of 0.1 s doubling.

    Args:
        engine: where to.
        table: a name of ``rows.TABLES``.
        structs: n rows of that table; rows are masked already, so that a dead letter may show them.
        generation: of the scoring that made the rows (mentions only).
        tries: of each part; with the six of the default it waits up to 3.1 s besides.
        clock: seconds since the epoch, for the dead letters' time.
        sleep: waits that many seconds.

    Raises:
        TransientError: the engine was not available all that time; nothing is lost by calling again.
        TerminalError: it cannot work; also when more than ``MAX_POISON_ROWS`` rows are refused.
    """
    dead: list[DeadLetter] = []
    parts: list[tuple[int, int]] = [(0, len(structs))] if structs else []
    while parts:
        start, end = parts.pop()
        try:
            _insert(engine, table, structs[start:end], generation, tries, sleep)
        except InvalidMessage as error:
            if end - start == 1:
                dead.append(_dead_letter(table, structs[start], error, int(clock() * 1000)))
                if len(dead) > MAX_POISON_ROWS:
                    raise TerminalError(
                        f"table {table} refuses more than {MAX_POISON_ROWS} rows of one block, the last one because: "
                        f"{error.detail}; rows and tables do not agree"
                    ) from error
            else:
                middle = (start + end) // 2
                # The earlier half comes first: rows keep their order.
                parts += [(middle, end), (start, middle)]
    return dead


def _insert(
    engine: Engine,
    table: str,
    structs: Sequence[Struct],
    generation: int,
    tries: int,
    sleep: Callable[[float], None],
) -> None:
    pause = _FIRST_PAUSE_SECONDS
    for _ in range(tries - 1):
        try:
            return engine.insert(table, structs, generation)
        except TransientError:
            sleep(pause)
            pause *= 2
    return engine.insert(table, structs, generation)


def _dead_letter(table: str, struct: Struct, error: InvalidMessage, now: int) -> DeadLetter:
    payload = _payload(struct)
    payload_hash = content_hash(payload)
    key = ",".join(str(attrgetter(name)(struct)) if hasattr(struct, name) else "?" for name in TABLES[table].key)
    locator = _clean(f"{table}:{key}")
    return DeadLetter(
        dead_letter_id=dead_letter_id(locator, payload_hash),
        source_id=_clean(str(getattr(struct, "source_id", ""))),
        stage="store",
        reason=error.reason,
        detail=_clean(error.detail)[:1000],
        locator=locator[:1000],
        payload=payload[:PAYLOAD_CHARACTERS],
        payload_hash=payload_hash,
        time=now,
    )


def _payload(struct: Struct) -> str:
    try:
        return msgspec.json.encode(struct).decode()
    except (UnicodeError, OverflowError, TypeError):
        # What no JSON can hold is shown as Python shows it.
        return _clean(repr(struct))


def _clean(text: str) -> str:
    """The text with lone surrogates written out, so that the dead letter itself can be stored."""
    return text.encode("utf-8", "backslashreplace").decode()
