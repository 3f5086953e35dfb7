"""What detection raises: an opened, updated or closed spike, ramp, severe mention or incident."""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.vocabulary import (
    Dimension,
    ExposureKind,
    Milliseconds,
    Severity,
    SignalEvent,
    SignalKind,
    SubjectKind,
    Tier,
)


class Evidence(Struct, frozen=True):
    """One mention that the signal rests on."""

    mention_id: str
    event_time: Milliseconds
    quote: Annotated[str, Meta(description="masked, shortened; empty for subjects that are no product")] = ""


class DriverShare(Struct, frozen=True):
    """How much of the excess one value of one dimension holds, against its share of the exposure."""

    dimension: Dimension
    value: str
    share_of_excess: float
    share_of_exposure: float


class Concentration(Struct, frozen=True):
    """Which single dimension explains the excess best; ``none`` when nothing does."""

    dimension: Dimension
    value: str
    drivers: list[DriverShare]


class Signal(Struct, frozen=True):
    """One revision of one signal. Key of the compacted ``signals.v1``: ``signal_id``."""

    signal_id: Annotated[str, Meta(description="hash of what it is about and the step that opened it")]
    revision: Annotated[int, Meta(ge=0)]
    event: SignalEvent
    kind: SignalKind
    tier: Tier
    severity: Severity
    historic: Annotated[
        bool, Meta(description="what opened it was ingested later than the alerting horizon: pages nobody")
    ]
    subject_kind: SubjectKind
    subject_id: str
    product_batch_id: str
    objection_type: str
    opened_step: Annotated[
        Milliseconds, Meta(description="start of the base step that opened it (severe: of the event day)")
    ]
    step_start: Annotated[Milliseconds, Meta(description="start of the base step this revision speaks of")]
    observed: Annotated[int, Meta(description="distinct voices in the window")]
    expected: Annotated[float, Meta(description="voices expected in the window by history and exposure")]
    interval: Annotated[
        tuple[float, float], Meta(description="95 % prediction interval of the count, were nothing wrong")
    ]
    exposure: Annotated[float, Meta(description="mean over the window")]
    exposure_kind: ExposureKind
    rate_ratio: Annotated[float, Meta(description="observed over expected")]
    window: Annotated[int, Meta(description="base steps in the window")]
    p_value: Annotated[
        float | None, Meta(description="of the scan, corrected for its windows; null on the severity path")
    ]
    voices: Annotated[int, Meta(description="distinct voices since it opened")]
    concentration: Concentration
    evidence: Annotated[list[Evidence], Meta(max_length=5)]
    opening_state: Annotated[
        str, Meta(description="JSON of the series' state when it opened, at most 4 KB: enough to replay it")
    ]
    versions: str
