"""The exporter as a process of its own."""

import http.client
import json
import os
import re
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Self

import yaml
from servers import free_port

from pipeline.settings import KafkaSettings

_SCRIPT = """
import json, logging, pathlib, signal, sys, threading
from pipeline.runtime import exporter
from pipeline.settings import load
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
logging.getLogger("kafka").setLevel(logging.WARNING)
for name, value in json.loads(sys.argv[1]).items():
    setattr(exporter, name, value)
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
exporter.export(load(pathlib.Path("radar.yaml")), stop)
"""


class Exporter:
    """``complaint-radar exporter`` on a port that it keeps over a kill; ``with`` ends it with TERM.

    ``constants`` of the module can be other ones, so that a test need not wait; the command itself is run without any.
    """

    def __init__(self, folder: Path, brokers: KafkaSettings, **constants: float) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._command = [str(Path(sys.executable).parent / "complaint-radar"), "exporter", "--config", "radar.yaml"]
        if constants:
            self._command = [sys.executable, "-c", _SCRIPT, json.dumps(constants)]
        section = {"bootstrap_servers": brokers.bootstrap_servers, "prefix": brokers.prefix}
        config = {"kafka": section, "admin": {"port": self.port}}
        (folder / "radar.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RADAR_")}
        with (self._folder / "exporter.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=self._folder, env=environment, stdout=log, stderr=log)

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> int:
        """End it with TERM; its exit code."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def scrape(self) -> tuple[int, str]:
        """Status and text of /metrics; status 0: nobody listens."""
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
                connection.request("GET", "/metrics")
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
        except OSError:
            return 0, ""

    def wait_for(self, series: str, value: str, seconds: float = 20) -> str:
        """The first scrape in which a series has a value, given as a pattern."""
        until = time.monotonic() + seconds
        while True:
            status, text = self.scrape()
            found = re.findall(rf"^{re.escape(series)} (.*)$", text, re.MULTILINE)
            if any(re.fullmatch(value, one) for one in found):
                return text
            assert time.monotonic() < until, f"{series}: {found}, not {value} (status {status})\n{self.log()}"
            time.sleep(0.05)

    def log(self) -> str:
        """The last of what it printed."""
        return (self._folder / "exporter.log").read_text(encoding="utf-8", errors="replace")[-3000:]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.stop() == 0, self.log()
