"""What can go wrong, and who does what about it.

::

    RadarError
    ├── ConfigurationError   the user's files or settings: names the key, the value, what is allowed; exit code 2
    ├── TransientError       retry with back-off, hold the upstream
    ├── TerminalError        stop the process; a supervisor starts it again, or a person acts
    │   ├── HeldError            another process holds the data folder
    │   ├── SourceChangedError   what was read before is no longer what the source holds
    │   └── QueryError           a question to the database is refused or wrong (pipeline.storage.engine)
    └── InvalidMessage       this record only: dead letter with its reason, the flow goes on

An adapter that knows a library decides which of its errors is which; nobody else looks at library exceptions.
"""

from schemas.dead_letter import DeadLetterReason


class RadarError(Exception):
    """Base of all errors that Complaint Radar raises on purpose."""


class ConfigurationError(RadarError):
    """The user's configuration is wrong. The message names the key, the value and what is allowed."""


class TransientError(RadarError):
    """Something outside is not available now; the same call may succeed later."""


class TerminalError(RadarError):
    """Going on would lose or double data, or cannot work. The process stops."""


class HeldError(TerminalError):
    """Another process holds the data folder; the message names it."""


class SourceChangedError(TerminalError):
    """The part of a source that was read before has changed; the message says the remedy."""


class InvalidMessage(RadarError):
    """One record cannot be taken in."""

    def __init__(self, reason: DeadLetterReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: DeadLetterReason = reason
        self.detail = detail
