"""Files: CSV and JSON lines, plain or .gz, that grow at their end (``mode: append``).

What is new since the last read is a *segment*. It is spooled in event-time order, published, and then the next one is
looked for. The cursor is the segment, how much of it is out, the hash of everything before its end, and the promise given
so far. A changed beginning is therefore seen, and a crash in the middle goes on where it was.

Every byte is numbered once, in file order, however the file came to be read: at a restart from the beginning, later only
what was appended. So identities and revisions are those of one single reading.

A last record without its end may still be written. It is published if nobody is writing (``complete``) or nobody has for a
while, but the cursor never passes it: when it has grown, it is read again.
"""

import contextlib
import hashlib
import itertools
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from connectors import records
from connectors.base import Checkpoint, Reading, SourceCheck, SourceItem
from connectors.mapping import Mapper, check_mapping, is_date_only
from connectors.masking import Masker, Pseudonymiser
from connectors.spool import COUNTED, Spool
from pipeline.errors import ConfigurationError, InvalidMessage, SourceChangedError, TransientError
from schemas import identity
from schemas.control import Idle, Watermark
from schemas.dead_letter import DeadLetter
from schemas.mention import MappedField, Mention
from schemas.vocabulary import Channel

CHECKPOINT_EVERY = 500
"""Records between two checkpoints: a cursor costs a hundred bytes, a checkpoint not taken costs nothing."""
_CHECKPOINT_BYTES = 4 << 20
_SPOOLED_TOGETHER = 1000
_SPOOLED_BYTES = 8 << 20
_SAMPLED = 100
_DEAD_LETTER_PAYLOAD = 16_384
_SETTLED_SECONDS = 10.0
"""A last line without its line feed is taken once nobody has written for this long."""
_CHECK_SECONDS = 60.0
"""How often all of what was read from a growing file is compared; in between its ends are …"""
_END_BYTES = 1 << 16
"""… of so many bytes."""
_BEFORE_ALL_TIME = -(1 << 62)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Mention | DeadLetter).decode


class _Cursor(msgspec.Struct, frozen=True):
    start: int = 0
    end: int = 0
    delivered: int = 0
    digest: str = ""
    promised: int = 0
    read_at: int = 0
    """When the segment was first read, ms UTC: what is too far ahead is judged by it, again and again alike."""
    configured: str = ""
    """Hash of what decides how records are read and ordered; if it changes, a segment begins anew."""


class _Read(NamedTuple):
    """A record that was read: where it starts, its event time, by what it is numbered, what it became."""

    start: int
    time: int
    key: tuple[bytes, bytes] | None
    item: Mention | DeadLetter


class FileSource:
    """One file as a source.

    Args:
        source_id: immutable name; part of every mention's identity.
        path: the file. ``.gz`` is decompressed as it is read.
        form: ``csv`` (with a header line) or ``jsonl``.
        channel: of its records.
        fields: our field to the file's column.
        time_zone, time_format: see ``Mapper``.
        max_lateness_ms: how far out of order appended records may come; behind that they are marked ``backfill``.
        complete: nobody is writing: a last line without its end is a record.
        masker, pseudonymise: what takes personal data out.
    """

    def __init__(
        self,
        source_id: str,
        path: Path,
        form: records.Format,
        channel: Channel,
        fields: Mapping[MappedField, str],
        *,
        time_zone: str,
        masker: Masker,
        pseudonymise: Pseudonymiser,
        time_format: str | None = None,
        max_lateness_ms: int = 0,
        complete: bool = False,
    ) -> None:
        check_mapping(fields, f"sources[{source_id}]")
        self.source_id = source_id
        self._path = path
        self._form: records.Format = form
        self._fields = dict(fields)
        self._mapper = Mapper(source_id, channel, fields, time_zone, time_format, masker, pseudonymise)
        self._configured = identity.content_hash(
            form, channel, time_zone, str(time_format), *map(str, sorted(fields.items()))
        )
        self._mask = masker.mask
        self._max_lateness_ms = max_lateness_ms
        self._complete = complete
        self._spool: Spool | None = None
        self._cursor = _Cursor()
        self._seen_state: tuple[int, int] | None = None
        self._header: list[str] = []
        self._tail: _Read | None = None
        self._reading = False
        self._begin_digest()

    # -- looking ---------------------------------------------------------------------------------------------------

    def check(self) -> SourceCheck:
        """See ``Source.check``: the file is there, readable, and has the mapped columns."""
        where = f"sources[{self.source_id}]"
        if not self._path.exists():
            raise ConfigurationError(f"{where}.path: {self._path} does not exist")
        if not self._path.is_file():
            raise ConfigurationError(f"{where}.path: {self._path} is no file")
        try:
            with records.open_file(self._path) as file:
                available, sample = self._sample(file)
        except (OSError, TransientError) as error:
            if isinstance(error, PermissionError):
                raise ConfigurationError(f"{where}.path: {self._path} may not be read by this user") from None
            return SourceCheck(f"{self._path.name}: not readable yet: {error}", date_only=False)
        if available and (missing := self._mapper.missing(available)) and (self._form == "csv" or "text" in missing):
            raise ConfigurationError(f"{where}.fields: {self._not_there(missing, available)}")
        times = [str(record.get(self._fields.get("event_time", ""), "")) for record in sample]
        readable = [time for time in times if time.strip()]
        dated = sum(map(is_date_only, readable))
        return SourceCheck(f"{self._path.name}: {self._form}, {len(available)} fields", dated > len(readable) / 2)

    def _sample(self, file: BinaryIO) -> tuple[list[str], list[dict[str, Any]]]:
        cut = records.cut(file, 0, self._form)
        header = self._read_header(first.data) if self._form == "csv" and (first := next(cut, None)) else []
        found = []
        for record in itertools.islice(cut, _SAMPLED):
            with contextlib.suppress(InvalidMessage):
                found.append(self._parse(record.data, header))
        return header or list(found[0] if found else {}), found

    def _not_there(self, missing: Sequence[str], available: Sequence[str]) -> str:
        # A file without a header line shows its first record here: short, and masked.
        shown = ", ".join(self._mask(name)[:24] for name in available[:30])
        return f"{', '.join(map(repr, missing))} not in {self._path.name}, which has: {shown}"

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, cursor: bytes | None) -> Iterator[SourceItem]:
        """See ``Source.read``."""
        try:
            yield from self._read(_Cursor() if cursor is None else msgspec.json.decode(cursor, type=_Cursor))
        except OSError as error:
            raise TransientError(f"{self._path} cannot be read: {error.strerror or error}") from None
        finally:
            if self._spool is not None and self._reading:
                self._forget()

    def _read(self, wanted: _Cursor) -> Iterator[SourceItem]:
        if self._spool is None or wanted != self._cursor:
            self._forget()
        self._reading = True
        if self._spool is None:
            self._spool, self._cursor = Spool(), wanted
            yield from self._resume(self._spool)
        while True:
            yield from self._deliver(self._spool)
            found = yield from self._next_segment(self._spool)
            if not found:
                break
        yield from self._deliver_tail()
        self._reading = False
        yield Idle(self.source_id)

    def _forget(self) -> None:
        """Nothing is kept between two readings but what the cursor says: after an error all is read again."""
        if self._spool is not None:
            self._spool.close()
        self._spool, self._seen_state, self._tail, self._reading = None, None, None, False
        self._begin_digest()

    def _resume(self, spool: Spool) -> Iterator[SourceItem]:
        cursor = self._cursor
        if not cursor.end:
            return
        if self._digest_grown(cursor.end) != cursor.digest:
            raise self._changed(cursor.end)
        self._ends = self._digest_ends(cursor.end)
        if cursor.configured != self._configured:
            cursor = self._cursor = msgspec.structs.replace(cursor, delivered=0, configured=self._configured)
        yield from self._scan(spool, 0, cursor)

    def _next_segment(self, spool: Spool) -> Generator[SourceItem, None, bool]:
        """Spool what stands behind the cursor; False if there is nothing."""
        stat = self._path.stat()
        state = (stat.st_size, stat.st_mtime_ns)
        if state == self._seen_state:
            return False
        before = self._cursor
        if self._seen_state is not None and before.end and not self._begins_as_before(stat.st_size):
            raise self._changed(before.end)
        spool.empty()
        segment = _Cursor(before.end, 0, 0, "", before.promised, time.time_ns() // 1_000_000, self._configured)
        settled = self._complete or time.time() - stat.st_mtime > _SETTLED_SECONDS
        end = yield from self._scan(spool, before.end, segment, settled=settled)
        # A record that is being written is looked at again, once it is complete or nobody has written for a while.
        self._seen_state = state if settled or self._tail is None else None
        if not settled:
            self._tail = None
        if end == before.end:
            return False
        self._cursor = msgspec.structs.replace(segment, end=end, digest=self._digest_grown(end))
        self._ends = self._digest_ends(end)
        return True

    def _changed(self, length: int) -> SourceChangedError:
        return SourceChangedError(
            f"source {self.source_id}: the first {length} bytes of {self._path} are no longer what was read before, but "
            f"`mode: append` means that a file only grows. Put the old beginning back; or give the new file a `name` of its "
            f"own under `sources`, as a source of its own."
        )

    def _deliver(self, spool: Spool) -> Iterator[SourceItem]:
        cursor = self._cursor
        delivered, promised, size = cursor.delivered, cursor.promised, 0
        for payload in spool.in_order(delivered):
            item = _decode(payload)
            if isinstance(item, Mention):
                promised = max(promised, min(item.event_time, cursor.read_at) - self._max_lateness_ms)
                item = self._dated(item, cursor)
            yield item
            delivered += 1
            size += len(payload)
            if delivered % CHECKPOINT_EVERY == 0 or size > _CHECKPOINT_BYTES:
                size = 0
                yield from self._checkpoint(delivered, promised)
        if delivered != self._cursor.delivered:
            yield from self._checkpoint(delivered, promised)

    def _dated(self, item: Mention, segment: _Cursor) -> Mention:
        """Marked as back-fill, if it came later than had been promised before its segment."""
        late = item.observed if segment.start == 0 else item.event_time < segment.promised
        return msgspec.structs.replace(item, backfill=True) if late else item

    def _checkpoint(self, delivered: int, promised: int) -> Iterator[SourceItem]:
        self._cursor = msgspec.structs.replace(self._cursor, delivered=delivered, promised=promised)
        if promised > 0:
            yield Watermark(self.source_id, promised)
        yield Checkpoint(msgspec.json.encode(self._cursor))

    def _deliver_tail(self) -> Iterator[SourceItem]:
        """The last record, which has no end yet: published, and not passed."""
        tail, self._tail = self._tail, None
        if tail is None or self._spool is None:
            return
        number = self._spool.trial(tail.key) if tail.key is not None else 0
        if number is not None:
            item = self._numbered(tail, number)
            yield self._dated(item, self._cursor) if isinstance(item, Mention) else item
            yield Checkpoint(msgspec.json.encode(self._cursor))

    # -- scanning --------------------------------------------------------------------------------------------------

    def _scan(
        self, spool: Spool, begin: int, segment: _Cursor, *, settled: bool = False
    ) -> Generator[SourceItem, None, int]:
        """Number every record from ``begin`` on, spool those of the segment; the end of the last complete record."""
        end, size = begin, 0
        read: list[_Read] = []
        for record in self._cut(begin, segment.end):
            if not (record.complete or segment.end or (settled and record.data.endswith(b"\n"))):
                self._tail = self._read_record(record, segment.read_at)
                break
            end = record.end
            read.append(self._read_record(record, segment.read_at))
            size += len(record.data)
            if len(read) == _SPOOLED_TOGETHER or size > _SPOOLED_BYTES:
                self._keep(spool, read, segment.start)
                read, size = [], 0
                yield Reading()
        self._keep(spool, read, segment.start)
        return end

    def _cut(self, begin: int, end: int) -> Iterator[records.RawBytes]:
        """The records between two positions (end 0: to the end of the file), without the header."""
        with records.open_file(self._path) as file:
            file.seek(begin)
            columns = len(self._header) if begin and self._header else None
            cut = records.cut(file, begin, self._form, columns, end)
            if not begin and self._form == "csv" and (first := next(cut, None)) is not None:
                if not first.complete and not self._complete:
                    return  # the header itself is being written
                self._header = self._read_header(first.data)
            yield from cut

    def _keep(self, spool: Spool, read: list[_Read], segment_start: int) -> None:
        """Number the records, spool those of the segment."""
        numbers = iter(spool.numbers([one.key for one in read if one.key is not None]))
        rows = []
        for one in read:
            number = next(numbers) if one.key is not None else 0
            if number is not None and one.start >= segment_start:
                rows.append((one.time, one.start, _encode(self._numbered(one, number))))
        spool.add(rows)

    def _read_record(self, record: records.RawBytes, now: int) -> _Read:
        parsed: dict[str, Any] | None = None
        try:
            parsed = self._parse(record.data, self._header)
            mention, content = self._mapper.mention(parsed, now)
        except InvalidMessage as error:
            return _Read(record.start, _BEFORE_ALL_TIME, None, self._dead_letter(record, parsed, error, now))
        named = bytes.fromhex(mention.mention_id)
        key = (named, bytes.fromhex(content)) if named else (bytes.fromhex(content), COUNTED)
        return _Read(record.start, mention.event_time, key, mention)

    def _numbered(self, one: _Read, number: int) -> Mention | DeadLetter:
        item = one.item
        if isinstance(item, DeadLetter) or one.key is None:
            return item
        if not item.mention_id:
            return self._identified(item, one.key[0].hex(), number)
        return msgspec.structs.replace(item, revision=number) if number else item

    def _identified(self, item: Mention, content: str, number: int) -> Mention:
        return msgspec.structs.replace(
            item, mention_id=identity.mention_id_without_native(self.source_id, content, number)
        )

    def _read_header(self, data: bytes) -> list[str]:
        where = f"sources[{self.source_id}]"
        try:
            header = [name.strip() for name in records.csv_row(data)]
        except InvalidMessage as error:
            raise ConfigurationError(f"{where}.path: no CSV header in {self._path}: {error.detail}") from None
        if missing := self._mapper.missing(header):
            raise ConfigurationError(f"{where}.fields: {self._not_there(missing, header)}")
        if twice := sorted({name for name in self._fields.values() if header.count(name) > 1}):
            raise ConfigurationError(f"{where}.fields: {', '.join(map(repr, twice))} stands twice in the header")
        return header

    def _parse(self, data: bytes, header: list[str]) -> dict[str, Any]:
        if self._form == "jsonl":
            return records.json_object(data)
        cells = records.csv_row(data)
        if len(cells) != len(header):
            raise InvalidMessage("unreadable", f"the header has {len(header)} columns, this record {len(cells)}")
        return dict(zip(header, cells, strict=True))

    def _dead_letter(
        self, record: records.RawBytes, parsed: dict[str, Any] | None, error: InvalidMessage, now: int
    ) -> DeadLetter:
        digest = hashlib.blake2b(record.data, digest_size=16).hexdigest()
        locator = f"{self._path.name}@{record.start}+{record.end - record.start}"
        if parsed is not None:
            text = self._mapper.shown(parsed)
        else:
            raw = record.data[: 4 * _DEAD_LETTER_PAYLOAD].replace(b"\x00", b"")
            text = self._mask(raw.decode("utf-8", "replace"))
        return DeadLetter(
            dead_letter_id=identity.dead_letter_id(f"{self.source_id}:{locator}", digest),
            source_id=self.source_id,
            stage="connector",
            reason=error.reason,
            detail=self._mask(error.detail),
            locator=locator,
            payload=text[:_DEAD_LETTER_PAYLOAD],
            payload_hash=digest,
            time=now,
        )

    def reread(self, refused: Sequence[tuple[str, str]]) -> Iterator[Mention | DeadLetter]:
        """See ``Source.reread``. A locator is ``file name@byte+length``, in bytes of the decompressed file.

        The whole file is numbered again, so that an old text does not come out as newer than the one after it.
        """
        wanted = {int(locator.rpartition("@")[2].partition("+")[0]): digest for locator, digest in refused}
        now = time.time_ns() // 1_000_000
        spool = Spool()
        found: list[tuple[_Read, int | None]] = []
        for record in self._cut(0, 0):
            one = self._read_record(record, now)
            (number,) = spool.numbers([one.key]) if one.key is not None else (0,)
            if hashlib.blake2b(record.data, digest_size=16).hexdigest() == wanted.get(record.start):
                found.append((one, number))
        for one, number in found:
            if isinstance(one.item, DeadLetter) or one.key is None:
                yield one.item
            elif not one.item.mention_id:
                # Equal records were numbered without it: its place is what tells it apart from them.
                yield msgspec.structs.replace(self._identified(one.item, one.key[0].hex(), -one.start), backfill=True)
            elif number is not None and number == spool.number(one.key[0]):
                yield msgspec.structs.replace(one.item, revision=number, backfill=True)
        spool.close()

    def _begin_digest(self) -> None:
        self._hash, self._hashed = hashlib.blake2b(digest_size=16), 0
        self._ends, self._checked = "", 0.0

    def _begins_as_before(self, size: int) -> bool:
        """Whether what was read still stands there: its first and last bytes each time, all of it once a minute.

        All of it each time would be work that grows with the file, however little is appended.
        """
        before = self._cursor
        if size < before.end or time.monotonic() - self._checked > _CHECK_SECONDS:
            self._checked = time.monotonic()
            return self._digest(before.end) == before.digest
        return self._digest_ends(before.end) == self._ends

    def _digest(self, length: int) -> str:
        """Hash of the first bytes of the (decompressed) file; of fewer, if it has fewer: another hash."""
        digest = hashlib.blake2b(digest_size=16)
        with records.open_file(self._path) as file:
            while length > 0 and (data := file.read(min(length, 1 << 20))):
                digest.update(data)
                length -= len(data)
        return digest.hexdigest()

    def _digest_grown(self, length: int) -> str:
        """The same of a longer beginning than the last time, reading only what has been appended."""
        with records.open_file(self._path) as file:
            file.seek(self._hashed)
            while self._hashed < length and (data := file.read(min(length - self._hashed, 1 << 20))):
                self._hash.update(data)
                self._hashed += len(data)
        return self._hash.hexdigest()

    def _digest_ends(self, length: int) -> str:
        digest = hashlib.blake2b(digest_size=16)
        with records.open_file(self._path) as file:
            digest.update(file.read(min(length, _END_BYTES)))
            file.seek(max(0, length - _END_BYTES))
            digest.update(file.read(min(length, _END_BYTES)))
        return digest.hexdigest()
