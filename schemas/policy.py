"""What detection promises and how it decides; every value has a default that is meant to be kept."""

from typing import Annotated

from msgspec import Meta, Struct

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class ProductPolicy(Struct, frozen=True):
    """What holds for one product instead; null: as for all."""

    product_id: str
    minimum_voices: Annotated[int, Meta(ge=1)] | None = None
    minimum_history: Annotated[int, Meta(ge=0)] | None = None


class QuietPeriod(Struct, frozen=True):
    """No window that reaches into it opens a spike or ramp; open signals go on, and harm is told all the same."""

    since: Annotated[int, Meta(description="first millisecond, UTC")]
    until: Annotated[int, Meta(description="first millisecond after it, UTC")]
    products: Annotated[tuple[str, ...], Meta(description="only of these products; empty: of all subjects")] = ()
    reason: str = ""


class DetectionPolicy(Struct, frozen=True):
    """The rules of detection, effective at a base step and named in every signal by their version."""

    step: Annotated[str, Meta(pattern="^(1h|1d)$", description="base step: 1h, or 1d = a local calendar day")] = "1h"
    time_zone: Annotated[str, Meta(description="zone of local days, an IANA name")] = "Asia/Shanghai"
    false_signals_per_week: Annotated[float, Meta(gt=0, description="the promise, over all live series together")] = 1.0
    series: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="series the promise is shared among; null: 7 types x lots of the catalogue"),
    ] = None
    minimum_voices: Annotated[
        int, Meta(ge=1, description="distinct voices in the window below which no spike opens")
    ] = 3
    minimum_history: Annotated[int, Meta(ge=0, description="closed steps of a product before its first spike")] = 7
    windows: Annotated[tuple[int, ...], Meta(description="lengths of the trailing windows scanned, in base steps")] = (
        1,
        2,
        4,
        8,
        16,
    )
    close_after: Annotated[int, Meta(ge=1, description="calm steps in a row after which a signal closes")] = 3
    allowed_lateness_ms: Annotated[
        int, Meta(ge=0, description="how long after its end a step still takes corrections; then it is final")
    ] = 2 * DAY_MS
    severity_pair_ms: Annotated[int, Meta(ge=0, description="two severity-3 voices within this time open a signal")] = (
        7 * DAY_MS
    )
    alerting_horizon_ms: Annotated[
        int,
        Meta(ge=0, description="a signal opened by what was ingested later than this after it happened is historic"),
    ] = DAY_MS
    products: Annotated[tuple[ProductPolicy, ...], Meta(description="what holds for single products instead")] = ()
    quiet_periods: Annotated[tuple[QuietPeriod, ...], Meta(description="when no spike and no ramp opens")] = ()
