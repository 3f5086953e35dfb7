"""The catalogue from a CSV file: products, their other names, their lots, and the units sold of each."""

import csv
import datetime as dt
import io
from pathlib import Path
from zoneinfo import ZoneInfo

from connectors import records
from connectors.mapping import parse_time
from pipeline.errors import ConfigurationError, InvalidMessage
from schemas.catalogue import CatalogueEntry

_COLUMNS = ("product_id", "name", "aliases", "product_batch_id", "units", "from", "until")


def read_catalogue(path: Path, time_zone: str) -> list[CatalogueEntry]:
    """The entries of a catalogue file, in file order.

    Columns: ``product_id`` and, as far as known, ``name``, ``aliases`` (parted by ``|``), ``product_batch_id``,
    ``units``, ``from``, ``until`` (days, local; the last day counts whole).

    Raises:
        ConfigurationError: names the line, the column and what is allowed.
    """
    try:
        text = records.decode(path.read_bytes())
    except FileNotFoundError:
        raise ConfigurationError(f"catalogue: {path} does not exist") from None
    except (OSError, InvalidMessage) as error:
        raise ConfigurationError(f"catalogue: {path} cannot be read: {error}") from None
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        return _entries(rows, path, ZoneInfo(time_zone))
    except csv.Error as error:
        raise ConfigurationError(f"catalogue: {path.name}, after line {rows.line_num}: {error}") from None
    except (KeyError, ValueError, OSError):
        raise ConfigurationError(
            f"time zone {time_zone!r} does not do; an IANA name such as Asia/Shanghai is needed"
        ) from None


def _entries(rows: "csv.DictReader[str]", path: Path, zone: ZoneInfo) -> list[CatalogueEntry]:
    header = [name.strip() for name in rows.fieldnames or []]
    if "product_id" not in header or (unknown := [name for name in header if name not in _COLUMNS]):
        what = "product_id is missing" if "product_id" not in header else f"unknown: {', '.join(map(repr, unknown))}"
        raise ConfigurationError(f"catalogue: columns of {path.name}: {what}; allowed: {', '.join(_COLUMNS)}")
    rows.fieldnames = header
    entries: list[CatalogueEntry] = []
    seen: set[tuple[str, str]] = set()
    for row in rows:
        entry = _entry(row, zone, f"catalogue: line {rows.line_num} of {path.name}")
        if (key := (entry.product_id, entry.product_batch_id)) in seen:
            raise ConfigurationError(
                f"catalogue: line {rows.line_num} of {path.name}: lot {entry.product_batch_id!r} of {entry.product_id!r} stands twice"
            )
        seen.add(key)
        entries.append(entry)
    return entries


def _entry(row: dict[str, str | None], zone: ZoneInfo, where: str) -> CatalogueEntry:
    def cell(name: str) -> str:
        return (row.get(name) or "").strip()

    if not cell("product_id"):
        raise ConfigurationError(f"{where}: product_id is empty")
    begin, end = _day(cell("from"), zone, f"{where}: from"), _day(cell("until"), zone, f"{where}: until", whole=True)
    if begin is not None and end is not None and end <= begin:
        raise ConfigurationError(f"{where}: until {cell('until')!r} lies before from {cell('from')!r}")
    return CatalogueEntry(
        product_id=cell("product_id"),
        name=cell("name") or cell("product_id"),
        aliases=[alias for part in cell("aliases").split("|") if (alias := part.strip())],
        product_batch_id=cell("product_batch_id"),
        units=_units(cell("units"), where),
        sold_from=begin,
        sold_until=end,
    )


def _units(value: str, where: str) -> float | None:
    if not value:
        return None
    try:
        units = float(value.replace(",", ""))
    except ValueError:
        units = -1.0
    if not 0 <= units < 1e12:
        raise ConfigurationError(f"{where}: units: {value!r} does not do; a number of units, 0 or more, is needed")
    return units


def _day(value: str, zone: ZoneInfo, where: str, *, whole: bool = False) -> int | None:
    """Local midnight of a day; of the day after it, if the day counts whole."""
    if not value:
        return None
    try:
        midnight = parse_time(value, zone, None)
    except (ValueError, OverflowError):
        raise ConfigurationError(f"{where}: {value!r} is no day; 2026-03-31 is one") from None
    if not whole:
        return midnight
    after = dt.datetime.fromtimestamp(midnight / 1000, zone) + dt.timedelta(days=1)
    return int(after.timestamp() * 1000)
