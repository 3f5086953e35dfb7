"""What a count is measured against: units in the field where the catalogue knows them, else mentions."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schemas.catalogue import CatalogueEntry

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

ACTIVITY_SHRINKAGE = 10.0
"""Quiet mentions added to both sides of the activity ratio, so that few mentions say little."""


class Lot(NamedTuple):
    """What the catalogue says of one lot: units sold in all (None: unknown), first and last unit in the field (ms UTC)."""

    units: float | None
    sold_from: int | None
    sold_until: int | None


Catalogue = dict[str, dict[str, Lot]]
"""Product → lot → what is known of it."""


def catalogue_of(entries: Iterable[CatalogueEntry]) -> Catalogue:
    """The entries by product and lot; of two entries for one lot the last holds."""
    catalogue: Catalogue = {}
    for entry in entries:
        lots = catalogue.setdefault(entry.product_id, {})
        lots[entry.product_batch_id] = Lot(entry.units, entry.sold_from, entry.sold_until)
    return catalogue


def units_in_field(units: Floats, sold_from: Floats, sold_until: Floats, instant: float | Floats) -> Floats:
    """Units in the field at an instant (ms UTC): none before ``sold_from``, all from ``sold_until``, even in between.

    At least one unit (or all, if a lot is smaller than that): a customer who complains has one, whatever the dates say.
    Missing dates are minus infinity: all units are in the field.
    """
    # Without a first day all are in the field; without a last day all came on the first.
    first = np.where(np.isfinite(sold_from), sold_from, instant - 1.0)
    length = np.maximum(np.where(np.isfinite(sold_until), sold_until, first) - first, 1.0)
    share = np.clip((instant - first) / length, 0.0, 1.0)
    field: Floats = np.maximum(units * share, np.minimum(units, 1.0))
    return field


def activity(quiet: Floats, usual: Floats) -> Floats:
    """How many times livelier than usual a product is, from its quiet mentions in a window and their usual number.

    Complaints per unit rise with everything else that customers say when a promotion or season brings them in; what
    names nothing negative is the measure of that. The ratio is shrunken towards 1 and never below 1: a quiet time is no
    reason to expect fewer complaints of the units in the field. Without a usual number (NaN) it is 1.
    """
    ratio = (quiet + ACTIVITY_SHRINKAGE) / (usual + ACTIVITY_SHRINKAGE)
    return np.maximum(np.where(np.isnan(ratio), 1.0, ratio), 1.0)
