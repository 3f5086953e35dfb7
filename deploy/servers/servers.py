"""Real servers as plain processes in a folder: Kafka, ClickHouse, Prometheus, Alertmanager; for tests and local use.

``install.sh`` installs the programs. A server keeps its folder and its ports over ``stop``, ``kill`` and ``restart``, listens
on 127.0.0.1 only, and writes to ``log.txt`` in its folder. On Linux, from the command line: ``servers.py up|down FOLDER``.
"""

import contextlib
import http
import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self
from xml.sax.saxutils import escape

HOST = "127.0.0.1"
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.02
_POM = Path(__file__).with_name("kafka-pom.xml")
_KAFKA_VERSION = _POM.read_text(encoding="utf-8").partition("<kafka.version>")[2].partition("<")[0]
_CLUSTER_ID = "Y29tcGxhaW50LXJhZGFyLQ"
_SEARCHED = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
"""Debian puts clickhouse-server into /usr/sbin, which is not on the path of ordinary users."""

PROMETHEUS_CONFIG = f"""\
global: {{scrape_interval: 5s, evaluation_interval: 5s}}
rule_files: ["{Path(__file__).resolve().parents[1] / "prometheus/rules.yaml"}"]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["127.0.0.1:9093"]}}]}}]}}
scrape_configs:
  - job_name: complaint-radar-exporter
    static_configs: [{{targets: ["127.0.0.1:9464"]}}]
    metric_relabel_configs: [{{action: labeldrop, regex: "instance|pod"}}]
  - job_name: complaint-radar
    static_configs: [{{targets: ["127.0.0.1:9465", "127.0.0.1:9466", "127.0.0.1:9467", "127.0.0.1:9468"]}}]
"""
ALERTMANAGER_CONFIG = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"


class ServerError(Exception):
    """A server did not start or did not stop; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Certificates:
    """PEM files in a folder: an authority, and what it signed for localhost and 127.0.0.1, for servers and clients alike."""

    folder: Path

    @property
    def authority(self) -> Path:
        """What the other side is to trust."""
        return self.folder / "authority.pem"

    @property
    def certificate(self) -> Path:
        """Signed by the authority."""
        return self.folder / "certificate.pem"

    @property
    def key(self) -> Path:
        """Of the certificate, not encrypted."""
        return self.folder / "key.pem"

    def make(self) -> None:
        """Make them, once."""
        if self.key.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        authority_key = self.folder / "authority-key.pem"
        _self_sign(
            "Test authority", self.authority, authority_key, extensions=["keyUsage=critical,keyCertSign,cRLSign"]
        )
        _self_sign(
            "localhost",
            self.certificate,
            self.key,
            "-CA", self.authority, "-CAkey", authority_key,
            extensions=["subjectAltName=DNS:localhost,IP:127.0.0.1", "basicConstraints=critical,CA:FALSE"],
        )  # fmt: skip


class Server:
    """One server process in a folder; ``with`` starts and stops it.

    Unless ``detached``, it dies with the thread that started it, however that ends: start servers from the main thread.
    """

    programs: ClassVar[tuple[str, ...]]
    """Names of the program, the first that is installed is taken."""

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = folder.resolve()
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.certificates = Certificates(self.folder / "certificates")
        """Where a server has TLS; made at its start."""
        self._log_start = 0

    @classmethod
    def missing(cls) -> str:
        """What is not installed, in plain words; empty if nothing."""
        if any(shutil.which(program, path=_SEARCHED) for program in cls.programs):
            return ""
        return f"{' or '.join(cls.programs)} is not installed; deploy/servers/install.sh installs it"

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running process."""
        return self._running().pid

    @property
    def log(self) -> Path:
        """Everything it printed since the folder was made."""
        return self.folder / "log.txt"

    def start(self, *, detached: bool = False) -> None:
        """Start it and wait until it serves."""
        if self.process is not None:
            raise ServerError(f"{self} runs already")
        if missing := self.missing():
            raise ServerError(missing)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._prepare()
        # Leaves no process behind when a test run is killed. (preexec_fn could do the same, but is not safe with threads.)
        tied = shutil.which("setpriv") if not detached else None
        command = [*((tied, "--pdeathsig", "KILL", "--") if tied else ()), *self._command()]
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(  # noqa: S603 - the command is ours
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._await_ready(self.process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it as an operator does, with TERM, and wait; nothing if it does not run."""
        if self.process is None:
            return
        self.resume()
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(f"{self} did not end within {_STOP_SECONDS:g} s of TERM:\n{self._tail()}") from None
        self.process = None

    def kill(self) -> None:
        """End it as a power cut does, with KILL; nothing if it does not run."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """Stop it in its tracks: connections stay open and nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after ``pause``."""
        self._running().send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop it if it runs, start it again: same ports, same data."""
        self.stop()
        self.start()

    def _prepare(self) -> None:
        """Write what the program reads into the folder."""

    def _command(self) -> Sequence[str]:
        raise NotImplementedError

    def _is_ready(self) -> bool:
        """Without this, by the way Prometheus and Alertmanager have in common."""
        return _http_ok(self.port, "/-/ready")

    def _program(self) -> str:
        return next(found for name in self.programs if (found := shutil.which(name, path=_SEARCHED)))

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            raise ServerError(f"{self} does not run")
        return self.process

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if process.poll() is not None:
                raise ServerError(f"{self} ended at its start, exit code {process.returncode}:\n{self._tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self} does not serve after {_START_SECONDS:g} s:\n{self._tail()}")
            time.sleep(_POLL_SECONDS)

    def _printed(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def _tail(self) -> str:
        return "\n".join(self._printed().splitlines()[-30:])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __str__(self) -> str:
        return f"{type(self).__name__} on {self.address} in {self.folder}"


class Kafka(Server):
    """One node, broker and controller in one; transactions and groups with short time-outs work on it.

    ``address`` is a plain listener. With ``security`` (SSL, SASL_SSL or SASL_PLAINTEXT) there is a second one on
    ``secure_address``; it takes the ``users`` by SCRAM-SHA-256, SCRAM-SHA-512 and PLAIN, and any unsigned OAUTHBEARER token.
    """

    programs = ("java",)
    _LIBRARIES = Path(os.environ.get("SERVERS_HOME") or Path.home() / ".cache/complaint-radar/servers") / (
        f"kafka-{_KAFKA_VERSION}/libs"
    )

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        properties: Mapping[str, str] | None = None,
        security: str = "",
        users: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, port=port)
        self.security = security
        self.users = dict(users or {})
        self._properties = dict(properties or {})
        self._controller_port = free_port()
        self._secure_port = free_port()

    @classmethod
    def missing(cls) -> str:
        """Java, or Kafka's own jars."""
        if (missing := super().missing()) or cls._LIBRARIES.is_dir():
            return missing
        return f"Kafka {_KAFKA_VERSION} is not in {cls._LIBRARIES}; deploy/servers/install.sh fetches it"

    @property
    def secure_address(self) -> str:
        """The listener with ``security``."""
        return f"{HOST}:{self._secure_port}"

    def _prepare(self) -> None:
        if self.security.endswith("SSL"):
            self.certificates.make()
            pair = self.certificates.key.read_bytes() + self.certificates.certificate.read_bytes()
            (self.folder / "keystore.pem").write_bytes(pair)
        properties = self._all_properties()
        lines = "".join(f"{name}={value}\n" for name, value in properties.items())
        (self.folder / "server.properties").write_text(lines, encoding="utf-8")
        if (self.folder / "data/meta.properties").exists():
            return
        users = [
            f"--add-scram=SCRAM-SHA-{bits}=[name={name},password={password}]"
            for name, password in self.users.items()
            for bits in (256, 512)
        ]
        _run(
            [*self._java("kafka.tools.StorageTool"), "format", "-t", _CLUSTER_ID, "-c", "server.properties", *users],
            self.folder,
        )

    def _command(self) -> Sequence[str]:
        return [*self._java("-Xms128m", "-Xmx512m", "kafka.Kafka"), "server.properties"]

    def _is_ready(self) -> bool:
        # An open port is not enough: it is open before the broker is let into its own cluster.
        return "Kafka Server started" in self._printed()

    def _java(self, *arguments: str) -> list[str]:
        # Compiling less and collecting on one thread take a quarter off the start.
        quick = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
        return [self._program(), *quick, "-cp", f"{self._LIBRARIES}/*", *arguments]

    def _all_properties(self) -> dict[str, str]:
        secure = f",SECURE://{self.secure_address}" if self.security else ""
        clients = f"CLIENTS://{self.address}{secure}"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{HOST}:{self._controller_port}",
            "listeners": f"{clients},CONTROLLER://{HOST}:{self._controller_port}",
            "advertised.listeners": clients,
            "listener.security.protocol.map": f"CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:{self.security or 'PLAINTEXT'}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "CLIENTS",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            # One node can hold one replica, and the coordinators' topics are made while the first client waits.
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "8",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "8",
            # So that tests need not wait for the dead.
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
            # After a kill, the controller lets the broker in again when its old session has ended, 9 s by default.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "500",
            # 128 MB by default, and taken at once.
            "log.cleaner.dedupe.buffer.size": "4194304",
            **self._security_properties(),
            **self._properties,
        }

    def _security_properties(self) -> dict[str, str]:
        found: dict[str, str] = {}
        prefix = "listener.name.secure"
        if self.security.endswith("SSL"):
            found |= {
                f"{prefix}.ssl.keystore.type": "PEM",
                f"{prefix}.ssl.keystore.location": str(self.folder / "keystore.pem"),
                f"{prefix}.ssl.truststore.type": "PEM",
                f"{prefix}.ssl.truststore.location": str(self.certificates.authority),
            }
        if self.security.startswith("SASL"):
            modules = "org.apache.kafka.common.security"
            users = "".join(f' user_{name}="{password}"' for name, password in self.users.items())
            scram = f"{modules}.scram.ScramLoginModule required;"
            logins = {
                "scram-sha-256": scram,
                "scram-sha-512": scram,
                "plain": f"{modules}.plain.PlainLoginModule required{users};",
                "oauthbearer": f"{modules}.oauthbearer.OAuthBearerLoginModule required"
                ' unsecuredLoginStringClaim_sub="broker";',
            }
            found[f"{prefix}.sasl.enabled.mechanisms"] = ",".join(name.upper() for name in logins)
            found |= {f"{prefix}.{name}.sasl.jaas.config": login for name, login in logins.items()}
        return found


class ClickHouse(Server):
    """A server whose user ``default`` has no password; ``users`` are more of them, with passwords.

    ``port`` speaks the native protocol, ``http_port`` HTTP, and if ``secure``, ``secure_port`` the native protocol in TLS.
    """

    programs = ("clickhouse-server",)

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        http_port: int | None = None,
        users: Mapping[str, str] | None = None,
        secure: bool = False,
    ) -> None:
        super().__init__(folder, port=port)
        self.http_port = http_port or free_port()
        self.secure_port = free_port()
        self.users = dict(users or {})
        self.secure = secure

    def _prepare(self) -> None:
        if self.secure:
            self.certificates.make()
        (self.folder / "config.xml").write_text(self._config(), encoding="utf-8")
        (self.folder / "users.xml").write_text(self._users(), encoding="utf-8")

    def _command(self) -> Sequence[str]:
        return [self._program(), f"--config-file={self.folder}/config.xml"]

    def _is_ready(self) -> bool:
        return _http_ok(self.http_port, "/ping")

    def _config(self) -> str:
        folder = escape(str(self.folder))
        # The root tag is that of old versions; new ones still take it.
        return f"""<yandex>
  <logger><level>information</level><console>1</console></logger>
  <listen_host>{HOST}</listen_host>
  <tcp_port>{self.port}</tcp_port>
  <http_port>{self.http_port}</http_port>{self._tls() if self.secure else ""}
  <path>{folder}/data/</path>
  <tmp_path>{folder}/temporary/</tmp_path>
  <user_files_path>{folder}/user_files/</user_files_path>
  <format_schema_path>{folder}/format_schemas/</format_schema_path>
  <users_config>{folder}/users.xml</users_config>
  <default_profile>default</default_profile>
  <default_database>default</default_database>
  <timezone>UTC</timezone>
  <mark_cache_size>16777216</mark_cache_size>
  <core_dump><size_limit>0</size_limit></core_dump>
</yandex>
"""

    def _tls(self) -> str:
        files = self.certificates
        return f"""
  <tcp_port_secure>{self.secure_port}</tcp_port_secure>
  <openSSL><server>
    <certificateFile>{escape(str(files.certificate))}</certificateFile>
    <privateKeyFile>{escape(str(files.key))}</privateKeyFile>
    <verificationMode>none</verificationMode>
  </server></openSSL>"""

    def _users(self) -> str:
        rights = f"<profile>default</profile><quota>default</quota><networks><ip>{HOST}</ip></networks>"
        users = "".join(
            f"    <{name}><password>{escape(password)}</password>{rights}</{name}>\n"
            for name, password in {"default": "", **self.users}.items()
        )
        return f"""<yandex>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users>
{users}  </users>
</yandex>
"""


class Prometheus(Server):
    """Runs the given configuration text; paths in it are taken from the folder."""

    programs = ("prometheus",)

    def __init__(self, folder: Path, *, port: int | None = None, config: str = PROMETHEUS_CONFIG) -> None:
        super().__init__(folder, port=port)
        self.config = config

    def _prepare(self) -> None:
        (self.folder / "prometheus.yml").write_text(self.config, encoding="utf-8")

    def _command(self) -> Sequence[str]:
        files = (f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data")
        return [self._program(), *files, f"--web.listen-address={self.address}"]


class Alertmanager(Server):
    """Runs the given configuration text, alone. A kill costs it the silences of the last minutes; a stop does not."""

    programs = ("prometheus-alertmanager", "alertmanager")

    def __init__(self, folder: Path, *, port: int | None = None, config: str = ALERTMANAGER_CONFIG) -> None:
        super().__init__(folder, port=port)
        self.config = config

    def _prepare(self) -> None:
        (self.folder / "alertmanager.yml").write_text(self.config, encoding="utf-8")

    def _command(self) -> Sequence[str]:
        files = (f"--config.file={self.folder}/alertmanager.yml", f"--storage.path={self.folder}/data")
        return [self._program(), *files, f"--web.listen-address={self.address}", "--cluster.listen-address="]


_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, never given before by this process.

    Below the range that the kernel gives to outgoing connections: while a server is down its port could otherwise go to one,
    even to a client's that tries to reach it, and the server could not come back.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            if port not in _given:
                _given.add(port)
                return port


def up(folder: Path) -> None:
    """Start all servers on their usual ports, to go on after this process."""
    servers = _usual(folder)
    if missing := [reason for server in servers if (reason := server.missing())]:
        raise ServerError("\n".join(missing))
    for server in servers:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, server.port)) == 0:
                raise ServerError(f"port {server.port} is taken; if {server} was left running, `down` stops it")
    with contextlib.ExitStack() as undo:
        for server in servers:
            server.start(detached=True)
            undo.callback(server.stop)
            _pid_file(server).write_text(f"{server.pid}\n", encoding="ascii")
            sys.stdout.write(f"{type(server).__name__:<14}{server.address}\n")
        undo.pop_all()


def down(folder: Path) -> None:
    """Stop what ``up`` started in the folder."""
    for server in reversed(_usual(folder)):
        pid_file = _pid_file(server)
        if not pid_file.exists():
            continue
        pid = int(pid_file.read_text(encoding="ascii"))
        if _runs_in(server.folder, pid):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while _runs_in(server.folder, pid):
            if time.monotonic() > deadline:
                raise ServerError(f"{server}, process {pid}, did not end within {_STOP_SECONDS:g} s of TERM")
            time.sleep(_POLL_SECONDS)
        pid_file.unlink()
        sys.stdout.write(f"{type(server).__name__} stopped\n")


def main(arguments: Sequence[str]) -> int:
    """``up FOLDER`` or ``down FOLDER``."""
    commands = {"up": up, "down": down}
    if len(arguments) != 2 or arguments[0] not in commands:
        sys.stderr.write("usage: servers.py up|down FOLDER\n")
        return 2
    try:
        commands[arguments[0]](Path(arguments[1]))
    except ServerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _usual(folder: Path) -> tuple[Server, ...]:
    return (
        Kafka(folder / "kafka", port=9092),
        ClickHouse(folder / "clickhouse", port=9000, http_port=8123),
        Prometheus(folder / "prometheus", port=9090),
        Alertmanager(folder / "alertmanager", port=9093),
    )


def _pid_file(server: Server) -> Path:
    return server.folder.with_suffix(".pid")


def _runs_in(folder: Path, pid: int) -> bool:
    """Whether the process is there and ours: a number is given again after a while, so it must work in the folder."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(folder)
    except OSError:
        return False


def _run(command: Sequence[str | Path], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)  # noqa: S603 - ours
    if done.returncode:
        raise ServerError(f"{command[0]} ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")


def _self_sign(name: str, certificate: Path, key: Path, *signer: str | Path, extensions: Sequence[str]) -> None:
    new = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", f"/CN={name}")
    added = [part for extension in extensions for part in ("-addext", extension)]
    _run([*new, *added, *signer, "-keyout", key, "-out", certificate], certificate.parent)


def _http_ok(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
