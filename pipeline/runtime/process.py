"""What the processes of the server path share: the sections that they cannot do without."""

from pipeline.errors import ConfigurationError
from pipeline.settings import KafkaSettings, Settings
from pipeline.storage.clickhouse import ServerEngine

PATIENCE_SECONDS = 60.0
"""How long a starting worker waits for brokers and topics before it gives up; its supervisor then tries again."""


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
