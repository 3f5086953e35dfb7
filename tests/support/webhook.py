"""A receiver of Alertmanager's webhooks that keeps what it was sent, and can be made to fail."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Notice:
    """One alert of one webhook."""

    received: float
    """Seconds since the epoch."""
    path: str
    authorization: str
    group: dict[str, str]
    status: str
    """firing or resolved."""
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: str


class Webhook:
    """Listens on 127.0.0.1 from ``with`` to its end."""

    def __init__(self) -> None:
        self.answer = 200
        """What it answers; 5xx keeps nothing."""
        self._notices: list[Notice] = []
        self._changed = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _handler(self._take))
        self._thread = threading.Thread(target=self._server.serve_forever, name="webhook", daemon=True)

    @property
    def url(self) -> str:
        """Where to send to; any path below it will do."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def notices(self, path: str = "", **labels: str) -> list[Notice]:
        """What came to the path with these labels so far, in order."""
        with self._changed:
            return [one for one in self._notices if one.path.startswith(path) and labels.items() <= one.labels.items()]

    def wait(self, statuses: Sequence[str], seconds: float, **labels: str) -> list[Notice]:
        """Wait until exactly these statuses have come for these labels.

        Raises:
            AssertionError: others came, or too few in time.
        """
        until = time.monotonic() + seconds
        while True:
            found = self.notices(**labels)
            told = [one.status for one in found]
            assert told == list(statuses[: len(told)]), f"{labels}: {told}, not {statuses}"
            if len(told) == len(statuses):
                return found
            left = until - time.monotonic()
            assert left > 0, f"{labels}: {told} after {seconds:g} s, not {statuses}"
            with self._changed:
                self._changed.wait(min(left, 0.2))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(self, path: str, authorization: str, body: dict[str, Any]) -> int:
        with self._changed:
            if self.answer < 500:
                self._notices += [
                    Notice(
                        time.time(),
                        path,
                        authorization,
                        body["groupLabels"],
                        alert["status"],
                        alert["labels"],
                        alert["annotations"],
                        alert["startsAt"],
                    )
                    for alert in body["alerts"]
                ]
                self._changed.notify_all()
            return self.answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1000  # groups of their own come at once


def _handler(take: Callable[[str, str, dict[str, Any]], int]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(take(self.path, self.headers.get("Authorization", ""), body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    return Handler
