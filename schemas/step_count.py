"""How many distinct voices objected, to what, in one base step, over which exposure."""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.vocabulary import CountStatus, ExposureKind, Milliseconds, Share, SubjectKind


class StepCount(Struct, frozen=True, gc=False):
    """One revision of one cell. Never overwritten: the idempotency key is all fields up to ``revision``."""

    subject_kind: SubjectKind
    subject_id: str
    product_batch_id: Annotated[str, Meta(description="empty: lot unknown, or the subject is no product")]
    objection_type: Annotated[str, Meta(description="an objection type, or `any`; absent types of a step are zero")]
    step_start: Milliseconds
    step: Annotated[str, Meta(description="length of the base step: 1h or 1d")]
    revision: Annotated[int, Meta(ge=0)]
    count: Annotated[int, Meta(ge=0, description="distinct voices that object")]
    mentions: Annotated[int, Meta(ge=0, description="all mentions of the subject and lot in the step")]
    exposure: Annotated[float, Meta(ge=0, description="units in the field, or mentions")]
    exposure_kind: ExposureKind
    known_share: Annotated[Share, Meta(description="share of the product's mentions in the step whose lot is known")]
    status: CountStatus
    versions: str
