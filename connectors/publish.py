"""Mentions, control records and cursors onto Kafka: one transaction a block, by kafka-python's producer.

``init_transactions`` comes first: it fences another connector of the same name and ends what it had open. Only then are
the cursors read, so that they are the last ones there will ever be of it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from kafka import KafkaProducer
from kafka.net.compat import KafkaNetClient
from kafka.partitioner import murmur2

TRANSACTION_MS = 10_000
"""After so long the brokers give up a transaction of a connector that died: readers wait for it no longer than that."""


def opened(make: Callable[..., Any], **options: Any) -> Any:
    """A client of kafka-python, made by its class; of one that does not reach the brokers nothing stays behind.

    The library itself leaves a running thread and four open files of each such attempt: whoever tries again and again while
    the brokers are away would run out of files within the hour.
    """
    under: list[Any] = []

    def net_client(**config: Any) -> Any:
        under.append(KafkaNetClient(**config))
        return under[-1]

    try:
        return make(**options, kafka_client=net_client)
    except BaseException:
        for one in under:
            one.close()
        raise


class Published(NamedTuple):
    """One record to be written. Without a partition, the key's hash decides; without a key too, any."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None
    headers: list[tuple[str, bytes]]


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, as Kafka's own clients choose it.

    Chosen here, since the library looks from time to time whether there are more partitions: a mention would go to one that
    has not been told the rules, and its edit to another than the mention.
    """
    found: int = (murmur2(key) & 0x7FFFFFFF) % partitions
    return found


class Publisher:
    """A transactional producer under one name.

    Args:
        options: addresses and security, as kafka-python takes them.
        transactional_id: name that fences an older process of the same one.
        errors: turns what the library raises into our errors, around a phrase that says what was done.

    Raises:
        As ``errors`` says.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        transactional_id: str,
        errors: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._errors = errors
        with errors(f"beginning to publish as transactional id {transactional_id}"):
            self._producer = opened(
                KafkaProducer,
                **options,
                transactional_id=transactional_id,
                transaction_timeout_ms=TRANSACTION_MS,
                acks="all",
                linger_ms=5,
                batch_size=256 * 1024,
                max_block_ms=15_000,
                delivery_timeout_ms=TRANSACTION_MS,
                request_timeout_ms=TRANSACTION_MS - 1000,
            )
            try:
                self._producer.init_transactions()
            except BaseException:
                self._producer.close(timeout=0)
                raise

    def partitions(self, topic: str) -> Iterator[int]:
        """Numbers of a topic's partitions."""
        with self._errors(f"looking at {topic}"):
            found: Iterable[int] | None = self._producer.partitions_for(topic)
        yield from sorted(found or ())

    def commit(self, records: Iterable[Published]) -> None:
        """Make all of them durable and visible together, or none.

        Raises:
            TransientError: not known whether it happened: begin again with a new publisher and its cursors.
            TerminalError: another process of this name has taken over.
        """
        with self._errors("publishing"):
            self._producer.begin_transaction()
            futures = [
                self._producer.send(one.topic, one.value, one.key, one.headers, one.partition) for one in records
            ]
            self._producer.flush()
            for future in futures:
                future.get(timeout=0)
            self._producer.commit_transaction()

    def close(self) -> None:
        """Let go; what is open is given up."""
        self._producer.close(timeout=1)
