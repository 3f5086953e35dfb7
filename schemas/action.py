"""What a person did about a signal: in band, so that a replay and every runtime see it."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.vocabulary import Milliseconds

ActionKind = Literal["acknowledge", "assign", "snooze", "false_alarm"]


class Action(Struct, frozen=True):
    """One action of one person on one signal. Key of ``actions.v1``: ``signal_id``."""

    signal_id: str
    action: ActionKind
    by: Annotated[str, Meta(description="who did it, as the team names its people")]
    time: Milliseconds
    assignee: Annotated[str, Meta(description="assign: to whom; else empty")] = ""
    until: Annotated[Milliseconds | None, Meta(description="snooze: until when; null: until it gets worse")] = None
    note: str = ""
