"""Files: CSV and JSON lines, plain or .gz, that grow at their end (``mode: append``).

What is new since the last read is a *segment*. It is spooled in event-time order, published, and then the next one is
looked for. The cursor is the segment, how much of it is out, the hash of everything before its end, and the promise
given so far. A changed beginning is therefore seen, and a crash in the middle goes on where it was.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from connectors import records
from connectors.base import Checkpoint, SourceCheck, SourceItem
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
_SPOOLED_TOGETHER = 1000
_DEAD_LETTER_PAYLOAD = 16_384
_SETTLED_SECONDS = 10.0
"""A last line without its line feed is taken once nobody has written for this long."""
_BEFORE_ALL_TIME = -(1 << 62)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Mention | DeadLetter).decode


class _Cursor(msgspec.Struct, frozen=True):
    start: int = 0
    end: int = 0
    delivered: int = 0
    digest: str = ""
    promised: int = 0


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
        self._mask = masker.mask
        self._max_lateness_ms = max_lateness_ms
        self._complete = complete
        self._spool: Spool | None = None
        self._cursor = _Cursor()
        self._seen_state: tuple[int, int] | None = None
        self._header: list[str] = []

    # -- looking ---------------------------------------------------------------------------------------------------

    def check(self) -> SourceCheck:
        """See ``Source.check``: the file is there, readable, and has the mapped columns."""
        where = f"sources[{self.source_id}]"
        try:
            with records.open_file(self._path) as file:
                first, sample = self._sample(file)
        except FileNotFoundError:
            raise ConfigurationError(f"{where}.path: {self._path} does not exist") from None
        except OSError as error:
            raise ConfigurationError(f"{where}.path: {self._path} cannot be read: {error.strerror or error}") from None
        available = first if self._form == "csv" else list(sample or {})
        if available and (missing := self._mapper.missing(available)) and (self._form == "csv" or "text" in missing):
            raise ConfigurationError(
                f"{where}.fields: {', '.join(map(repr, missing))} not in {self._path.name}, which has: {', '.join(available)}"
            )
        value = sample.get(self._fields.get("event_time", "")) if sample else None
        return SourceCheck(f"{self._path.name}: {self._form}, {len(available)} fields", is_date_only(value))

    def _sample(self, file: Any) -> tuple[list[str], dict[str, Any]]:
        cut = records.cut(file, 0, self._form)
        try:
            header = records.csv_row(first.data) if self._form == "csv" and (first := next(cut, None)) else []
            record = next(cut, None)
            return header, self._parse(record.data, header) if record else {}
        except InvalidMessage:
            return header if self._form == "csv" else [], {}

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, cursor: bytes | None) -> Iterator[SourceItem]:
        """See ``Source.read``."""
        self._resume(cursor)
        assert self._spool is not None  # noqa: S101 - _resume opens it
        while True:
            yield from self._deliver(self._spool)
            if not self._next_segment(self._spool):
                yield Idle(self.source_id)
                return

    def _resume(self, cursor: bytes | None) -> None:
        wanted = _Cursor() if cursor is None else msgspec.json.decode(cursor, type=_Cursor)
        if self._spool is not None and wanted == self._cursor:
            return
        if self._spool is not None:
            self._spool.close()
        self._spool, self._cursor, self._seen_state = Spool(), wanted, None
        if wanted.end:
            self._scan(self._spool, wanted, until=wanted.end)
            self._check_digest(wanted)

    def _next_segment(self, spool: Spool) -> bool:
        """Spool what stands behind the cursor; False if there is nothing."""
        state = self._stat()
        if state == self._seen_state:
            return False
        if self._seen_state is not None:
            self._check_digest(self._cursor)
        spool.empty()
        before = self._cursor
        end = self._scan(spool, msgspec.structs.replace(before, start=before.end), until=None)
        self._seen_state = state
        if end == before.end:
            return False
        self._cursor = _Cursor(before.end, end, 0, self._digest(end), before.promised)
        return True

    def _deliver(self, spool: Spool) -> Iterator[SourceItem]:
        cursor = self._cursor
        delivered, promised = cursor.delivered, cursor.promised
        for payload in spool.in_order(delivered):
            item = _decode(payload)
            if isinstance(item, Mention):
                late = item.observed if cursor.start == 0 else item.event_time < cursor.promised
                promised = max(promised, item.event_time - self._max_lateness_ms)
                item = msgspec.structs.replace(item, backfill=True) if late else item
            yield item
            delivered += 1
            if delivered % CHECKPOINT_EVERY == 0:
                yield from self._checkpoint(delivered, promised)
        if delivered != self._cursor.delivered:
            yield from self._checkpoint(delivered, promised)

    def _checkpoint(self, delivered: int, promised: int) -> Iterator[SourceItem]:
        # `late` above is judged by the promise at the segment's begin, which the cursor in hand must keep until its end.
        done = msgspec.structs.replace(self._cursor, delivered=delivered, promised=promised)
        if promised:
            yield Watermark(self.source_id, promised)
        self._cursor = done
        yield Checkpoint(msgspec.json.encode(done))

    # -- scanning --------------------------------------------------------------------------------------------------

    def _scan(self, spool: Spool, segment: _Cursor, until: int | None) -> int:
        """Number every record, spool those of the segment; the position after the last complete record."""
        now = time.time_ns() // 1_000_000
        end = 0
        read: list[_Read] = []
        with records.open_file(self._path) as file:
            for record in records.cut(file, 0, self._form):
                if (until is not None and record.start >= until) or not self._is_whole(record, until):
                    break
                end = record.end
                if record.start == 0 and self._form == "csv":
                    self._header = self._read_header(record.data)
                    continue
                read.append(self._read_record(record, now))
                if len(read) == _SPOOLED_TOGETHER:
                    self._keep(spool, read, segment.start)
                    read.clear()
        self._keep(spool, read, segment.start)
        return max(end, segment.end)

    def _keep(self, spool: Spool, read: list[_Read], segment_start: int) -> None:
        """Number the records, spool those of the segment."""
        numbers = iter(spool.numbers([one.key for one in read if one.key is not None]))
        rows = []
        for one in read:
            number = next(numbers) if one.key is not None else 0
            if number is not None and one.start >= segment_start:
                rows.append((one.time, one.start, _encode(self._numbered(one, number))))
        spool.add(rows)

    def _is_whole(self, record: records.RawRecord, until: int | None) -> bool:
        if record.complete or self._complete or until is not None:
            return True
        return time.time() - self._path.stat().st_mtime > _SETTLED_SECONDS

    def _read_record(self, record: records.RawRecord, now: int) -> _Read:
        try:
            mention, content = self._mapper.mention(self._parse(record.data, self._header), now)
        except InvalidMessage as error:
            return _Read(record.start, _BEFORE_ALL_TIME, None, self._dead_letter(record, error, now))
        named = bytes.fromhex(mention.mention_id)
        key = (named, bytes.fromhex(content)) if named else (bytes.fromhex(content), COUNTED)
        return _Read(record.start, mention.event_time, key, mention)

    def _numbered(self, one: _Read, number: int) -> Mention | DeadLetter:
        item = one.item
        if isinstance(item, DeadLetter) or one.key is None:
            return item
        if not item.mention_id:
            identified = identity.mention_id_without_native(self.source_id, one.key[0].hex(), number)
            return msgspec.structs.replace(item, mention_id=identified)
        return msgspec.structs.replace(item, revision=number) if number else item

    def _read_header(self, data: bytes) -> list[str]:
        try:
            header = [name.strip() for name in records.csv_row(data)]
        except InvalidMessage as error:
            raise ConfigurationError(
                f"sources[{self.source_id}].path: no CSV header in {self._path}: {error.detail}"
            ) from None
        if missing := self._mapper.missing(header):
            raise ConfigurationError(
                f"sources[{self.source_id}].fields: {', '.join(map(repr, missing))} not in the header: {', '.join(header)}"
            )
        return header

    def _parse(self, data: bytes, header: list[str]) -> dict[str, Any]:
        if self._form == "jsonl":
            return records.json_object(data)
        cells = records.csv_row(data)
        if len(cells) != len(header):
            raise InvalidMessage("unreadable", f"the header has {len(header)} columns, this record {len(cells)}")
        return dict(zip(header, cells, strict=True))

    def _dead_letter(self, record: records.RawRecord, error: InvalidMessage, now: int) -> DeadLetter:
        digest = hashlib.blake2b(record.data, digest_size=16).hexdigest()
        locator = f"{self._path.name}@{record.start}+{record.end - record.start}"
        text = self._mask(record.data[: 4 * _DEAD_LETTER_PAYLOAD].decode("utf-8", "replace"))
        return DeadLetter(
            dead_letter_id=identity.dead_letter_id(f"{self.source_id}:{locator}", digest),
            source_id=self.source_id,
            stage="connector",
            reason=error.reason,
            detail=error.detail,
            locator=locator,
            payload=text[:_DEAD_LETTER_PAYLOAD],
            payload_hash=digest,
            time=now,
        )

    def reread(self, locators: list[str]) -> Iterator[Mention | DeadLetter]:
        """See ``Source.reread``. A locator is ``file name@byte+length``, in bytes of the decompressed file."""
        now = time.time_ns() // 1_000_000
        wanted = sorted(tuple(map(int, locator.rpartition("@")[2].split("+"))) for locator in locators)
        with records.open_file(self._path) as file:
            if self._form == "csv" and (first := next(records.cut(file, 0, "csv"), None)) is not None:
                self._header = self._read_header(first.data)
            read = []
            for start, length in wanted:
                file.seek(start)
                data = file.read(min(length, records.MAX_RECORD_BYTES + 1))
                read.append(self._read_record(records.RawRecord(start, start + length, data), now))
        spool = Spool()
        self._keep(spool, read, 0)
        for payload in spool.in_order(0):
            item = _decode(payload)
            yield msgspec.structs.replace(item, backfill=True) if isinstance(item, Mention) else item
        spool.close()

    # -- has the beginning changed? ----------------------------------------------------------------------------------

    def _stat(self) -> tuple[int, int]:
        stat = self._path.stat()
        return stat.st_size, stat.st_mtime_ns

    def _digest(self, length: int) -> str:
        digest = hashlib.blake2b(digest_size=16)
        try:
            with records.open_file(self._path) as file:
                while length > 0 and (data := file.read(min(length, 1 << 20))):
                    digest.update(data)
                    length -= len(data)
        except OSError as error:
            raise TransientError(f"{self._path}: {error}") from None
        return digest.hexdigest() if length == 0 else "shorter"

    def _check_digest(self, cursor: _Cursor) -> None:
        if cursor.end and self._digest(cursor.end) != cursor.digest:
            raise SourceChangedError(
                f"source {self.source_id}: the first {cursor.end} bytes of {self._path} are no longer what was read on an earlier "
                f"run, but `mode: append` means that a file only grows. Put the old beginning back; or give the new file a "
                f"`name` of its own under `sources`, as a source of its own."
            )
