"""``complaint-radar dead-letters replay`` on servers: refused records, read again at their sources, published beside the connector."""

import time
from collections.abc import Callable, Sequence

from connectors.catalogue import read_catalogue
from connectors.publish import Published, Publisher, partition_of
from pipeline.runtime import kafka
from pipeline.runtime.connect import BLOCK_MENTIONS, RAW, sources_of
from pipeline.runtime.kafka import Names
from pipeline.runtime.process import brokers_of, server_engine
from pipeline.runtime.stage import version_headers
from pipeline.settings import Settings
from pipeline.storage.dead_letters import Asked, mark_replayed, to_read_again
from schemas.codec import encode
from schemas.mention import Mention


def republish(settings: Settings, asked: Sequence[Asked]) -> list[str]:
    """Read refused records again at their sources and publish what can be taken in now, beside a connector at work.

    Args:
        settings: sources as they are configured now.
        asked: what to read.

    Returns:
        The ids of those that were taken in.
    """
    brokers = brokers_of(settings)
    names = Names(brokers)
    catalogue = read_catalogue(settings.catalogue, settings.time_zone) if settings.catalogue else []
    wanted = {one.source_id for one in asked}
    sources = [one for one in sources_of(settings, catalogue, complete=True) if one.source_id in wanted]
    publisher = Publisher(kafka.client_options(brokers, "replay"), names.transactional_id("replay"), kafka.errors)
    records: list[Published] = []
    refused = set[str]()
    try:
        partitions = len(list(publisher.partitions(names.topic(RAW))))
        for source in sources:
            for item in source.reread(
                [(one.locator, one.payload_hash) for one in asked if one.source_id == source.source_id]
            ):
                if isinstance(item, Mention):
                    key = item.mention_id.encode()
                    partition = partition_of(key, partitions)
                    records.append(Published(names.topic(RAW), key, encode(item), partition, version_headers(RAW)))
                else:
                    refused.add(item.dead_letter_id)
        for at in range(0, len(records), BLOCK_MENTIONS):
            publisher.commit(records[at : at + BLOCK_MENTIONS])
    finally:
        publisher.close()
    read = {source.source_id for source in sources}
    return [one.dead_letter_id for one in asked if one.source_id in read and one.dead_letter_id not in refused]


def replay(
    settings: Settings, identities: list[str], reason: str | None, source: str | None, say: Callable[[str], None]
) -> None:
    """Have dead letters read again at their sources and published, here and now."""
    engine = server_engine(settings)
    try:
        asked, others = to_read_again(engine.query, identities, reason, source)
        if others:
            say(f"{others} were refused by a later stage: they have no record at a source to be read again")
        taken = republish(settings, asked) if asked else []
        if taken:
            mark_replayed(engine, taken, time.time_ns() // 1_000_000)
        say(f"{len(asked)} dead letters read again, {len(taken)} taken in")
    finally:
        engine.close()
