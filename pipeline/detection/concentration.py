"""Which single dimension explains an excess best: the lot, a carrier, a region, a channel, a version, or none.

A value explains an excess when it holds at least half of it, clearly more than its share of the exposure (`MARGIN`; of
one with most of the exposure, half of what is left to it), and more than chance would put there (a one-sided binomial tail
below `CHANCE`). Of several the one with the widest margin is named. The shares are point estimates; only mentions of steps
that are not final yet are looked at.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import betainc

from pipeline.detection.entries import NOT_EXPOSURE, Row
from schemas.signal import Concentration, DriverShare
from schemas.vocabulary import Dimension

HALF = 0.5
MARGIN = 0.3
MARGIN_OF_CARRIER = 0.15
"""Enough to clear all lots of a product of late deliveries: it is their common excess, so it has more voices to judge by."""
CHANCE = 0.05

DIMENSIONS: dict[Dimension, Callable[[Row], str]] = {
    "carrier": lambda row: row.carrier,
    "region": lambda row: row.region,
    "channel": lambda row: row.channel,
    "version": lambda row: row.version,
}


class Member(NamedTuple):
    """One value of a dimension: its voices against the type, those expected of it, and its exposure."""

    value: str
    observed: float
    expected: float
    exposure: float


def driver(dimension: Dimension, members: Sequence[Member], margin: float = MARGIN) -> tuple[DriverShare, bool] | None:
    """The member with the widest margin of excess over exposure, and whether it explains the excess.

    None where there is nothing to compare: fewer than two members, or no exposure, or no excess.
    """
    observed, expected, exposure = (np.array([member[column] for member in members]) for column in (1, 2, 3))
    if len(members) < 2 or exposure.sum() <= 0:
        return None
    surplus = np.maximum(observed - expected, 0.0)
    if surplus.sum() <= 0:
        return None
    excess, share = surplus / surplus.sum(), exposure / exposure.sum()
    top = int(np.argmax(excess - share))
    count, total = float(observed[top]), float(observed.sum())
    chance = float(betainc(count, total - count + 1.0, share[top])) if count > 0 else 1.0
    wanted = min(margin, (1.0 - share[top]) / 2.0)
    clear = bool(excess[top] >= HALF and excess[top] - share[top] >= wanted and chance <= CHANCE)
    return DriverShare(dimension, members[top].value, float(excess[top]), float(share[top])), clear


def by_value(rows: Iterable[Row], type_index: int, value_of: Callable[[Row], str], expected: float) -> list[Member]:
    """The values of a dimension among rows; what was expected is shared out by their exposure. Ordered by value.

    The exposure is mentions that do not object to the type: those that do would hide the very share that is looked for.
    Half a mention is added to each, and rows whose value is unknown say nothing about the dimension.
    """
    mentions: Counter[str] = Counter()
    objecting: Counter[str] = Counter()
    for row in rows:
        value = value_of(row)
        if value and row.count and not row.flags & NOT_EXPOSURE:
            objects = row.objects_to(type_index)
            objecting[value] += row.count * objects
            mentions[value] += row.count * (not objects)
    exposure = {value: mentions[value] + 0.5 for value in sorted(objecting)}
    total = sum(exposure.values())
    return [Member(value, objecting[value], expected * part / total, part) for value, part in exposure.items()]


def concentration(
    own: Sequence[Row],
    type_index: int,
    expected: float,
    lot: str,
    siblings: Sequence[Member],
    fixed: Mapping[str, bool],
) -> Concentration:
    """The verdict on one excess.

    Args:
        own: the unit's rows in the window.
        type_index: what they object to.
        expected: voices expected of the unit in the steps that those rows are of.
        lot: of the unit; a version of the same name is not another dimension.
        siblings: lots of the product, the unit's among them; empty for other subjects.
        fixed: dimensions that the subject itself fixes (a carrier's own mentions all have that carrier).
    """
    found = [driver("batch", siblings)]
    for dimension, value_of in DIMENSIONS.items():
        if not fixed.get(dimension):
            members = by_value(own, type_index, value_of, expected)
            if dimension == "version":
                members = [member for member in members if member.value != lot] if lot else members
            found.append(driver(dimension, members))
    drivers = [result for result in found if result is not None]
    shares = [share for share, _ in drivers]
    clear = [share for share, explains in drivers if explains]
    if not clear:
        return Concentration("none", "", shares)
    best = max(clear, key=lambda share: share.share_of_excess - share.share_of_exposure)
    return Concentration(best.dimension, best.value, shares)


def held_by_one_lot(rows: Iterable[Row], type_index: int, expected: float) -> bool:
    """Whether one lot of one product explains the excess of a subject that is no product."""
    members = by_value(
        rows,
        type_index,
        lambda row: f"{row.product_id}\x1f{row.product_batch_id}" if row.product_id else "",
        expected,
    )
    return _explains(driver("batch", members))


def held_by_one_carrier(rows: Iterable[Row], type_index: int, expected: float, siblings: Sequence[Member]) -> bool:
    """Whether a carrier explains the excess of all lots of a product, and none of the lots does."""
    carrier = driver("carrier", by_value(rows, type_index, DIMENSIONS["carrier"], expected), MARGIN_OF_CARRIER)
    return _explains(carrier) and not _explains(driver("batch", siblings))


def _explains(result: tuple[DriverShare, bool] | None) -> bool:
    return result is not None and result[1]
