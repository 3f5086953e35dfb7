"""The admin port: /metrics, /healthz (the loop turns) and /readyz (state restored, database open)."""

import logging
import socketserver
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from pipeline import metrics
from pipeline.errors import ConfigurationError
from pipeline.settings import Settings

STALLED_AFTER = 120.0
"""Seconds without a turn of the loop after which the process is called stuck."""

_log = logging.getLogger(__name__)


class Health:
    """What the loop tells and the admin port answers."""

    def __init__(self) -> None:
        self.ready = False
        self.complete = True
        """False: /metrics answers 503, because an answer without what is not read yet would say that it is over."""
        self._turned = time.monotonic()

    def turned(self) -> None:
        """The loop has made a turn."""
        self._turned = time.monotonic()

    def wait(self, stop: threading.Event, seconds: float) -> None:
        """Wait on purpose, at most until told to stop."""
        until = time.monotonic() + seconds
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            self.turned()
            stop.wait(min(left, STALLED_AFTER / 4))
        self.turned()

    @property
    def alive(self) -> bool:
        """Whether the loop has turned lately."""
        return time.monotonic() - self._turned < STALLED_AFTER


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Scrapes are no news."""


class AdminServer:
    """Serves the admin port from a thread until ``stop``.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """

    def __init__(self, host: str, port: int, health: Health) -> None:
        self._health = health
        self._metrics = metrics.exposition()
        try:
            self._server = make_server(host, port, self._answer, server_class=_Server, handler_class=_Quiet)
        except OSError as error:
            raise ConfigurationError(
                f"admin: cannot listen on {host}:{port}: {error.strerror}; another port (0: any free one) by admin.port"
            ) from None
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="admin", daemon=True)
        self._thread.start()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            if not self._health.complete:
                start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
                return [b"the state is not read yet\n"]
            return self._metrics(environ, start_response)
        answers = {"/healthz": self._health.alive, "/readyz": self._health.ready}
        if path not in answers:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"here are /metrics, /healthz and /readyz\n"]
        good = answers[path]
        start_response("200 OK" if good else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"ok\n" if good else b"not yet\n" if path == "/readyz" else b"the loop does not turn\n"]

    def stop(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def supervised(settings: Settings, *, complete: bool = True) -> Iterator[Health]:
    """Health and metrics of this process on the admin port. ``complete``: as in ``Health``, to begin with."""
    health = Health()
    health.complete = complete
    admin = AdminServer(settings.admin.host, settings.admin.port, health)
    _log.info("metrics and health on http://%s:%d/metrics", settings.admin.host, admin.port)
    try:
        yield health
    finally:
        admin.stop()
