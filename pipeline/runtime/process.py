"""What the processes of the server path share: health and metrics on the admin port, and the sections they cannot do without."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import ConfigurationError
from pipeline.runtime.health import AdminServer, Health
from pipeline.settings import KafkaSettings, Settings
from pipeline.storage.clickhouse import ServerEngine

PATIENCE_SECONDS = 60.0
"""How long a starting worker waits for brokers and topics before it gives up; its supervisor then tries again."""

_log = logging.getLogger(__name__)


@contextmanager
def supervised(settings: Settings) -> Iterator[Health]:
    """Health and metrics of this process on the admin port."""
    health = Health()
    admin = AdminServer(settings.admin.host, settings.admin.port, health)
    _log.info("metrics and health on http://%s:%d/metrics", settings.admin.host, admin.port)
    try:
        yield health
    finally:
        admin.stop()


def brokers_of(settings: Settings) -> KafkaSettings:
    """The section ``kafka``.

    Raises:
        ConfigurationError: there is none.
    """
    if settings.kafka is None:
        raise ConfigurationError("kafka: is missing; at least `kafka: {bootstrap_servers: host:port}` is needed")
    return settings.kafka


def server_engine(settings: Settings) -> ServerEngine:
    """The server of the section ``clickhouse``; whoever asks for it closes it.

    Raises:
        ConfigurationError: there is none.
    """
    if settings.clickhouse is None:
        raise ConfigurationError("clickhouse: is missing; at least `clickhouse: {hosts: host:port}` is needed")
    return ServerEngine(settings.clickhouse)
