"""What the processes say on stderr: a line an event, and the libraries' complaints seldom."""

import logging
import sys
import time

_LIBRARIES = ("kafka", "aiokafka", "faust", "mode", "asyncio")
_FRAMEWORK = ("pipeline.runtime.faust_transport", "pipeline.runtime.faust_app")
"""Under the names of modules that derive from them, Faust's services log their starts and stops."""
SELDOM_SECONDS = 10.0


class Seldom(logging.Filter):
    """Lets one record of each logger pass in ten seconds: while a broker is away each client complains many times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it may pass."""
        now = time.monotonic()
        if now - self._last.get(record.name, -SELDOM_SECONDS) < SELDOM_SECONDS:
            return False
        self._last[record.name] = now
        record.exc_info = record.exc_text = None  # the error itself is told by ours
        return True


class _OurOwn(logging.Filter):
    """Leaves out what a service of Faust says about itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or not str(record.msg).startswith("[^")


def log_to_stderr() -> None:
    """Our events from INFO on; the libraries' from ERROR on, and seldom."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    seldom = Seldom()
    handler.addFilter(lambda record: not record.name.startswith(_LIBRARIES) or seldom.filter(record))
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in _FRAMEWORK:
        logging.getLogger(name).addFilter(_OurOwn())
