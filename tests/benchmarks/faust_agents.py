"""Faust agents that our score worker is measured against: ``python -m tests.benchmarks.faust_agents pass|naive …``.

``pass`` takes blocks as our worker does and publishes each record as it is, one by one, with a plain producer of its own:
what a hop through Faust costs before any work is done. ``naive`` is what one writes first: ``async for``, SnowNLP,
``topic.send``. Both are Faust as it is shipped, and print how many records they have passed on.
"""

import argparse
import asyncio
import json
import time
from typing import Any

import faust
from aiokafka import AIOKafkaProducer

BLOCK_RECORDS = 3000
BLOCK_SECONDS = 0.05
_TOLD_EVERY_SECONDS = 0.1


class Passed:
    """Records passed on, told on standard output every so often."""

    def __init__(self) -> None:
        self._count = 0
        self._told = 0.0

    def add(self, number: int) -> None:
        self._count += number
        if time.monotonic() - self._told > _TOLD_EVERY_SECONDS:
            self.tell()

    def tell(self) -> None:
        self._told = time.monotonic()
        print(self._count, flush=True)


def make_app(broker: str, group: str) -> Any:
    """An app with the buffers of our worker, so that they make no difference."""
    return faust.App(
        group,
        broker=f"kafka://{broker}",
        broker_session_timeout=10.0,
        broker_heartbeat_interval=2.5,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=4 << 20,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        stream_wait_empty=False,
        stream_buffer_maxsize=2 * BLOCK_RECORDS,
        datadir="/nonexistent",
    )


def add_pass(app: Any, broker: str, source: Any, target: str, passed: Passed) -> None:
    producer: AIOKafkaProducer | None = None

    @app.agent(source, concurrency=1)
    async def agent(stream: Any) -> None:
        nonlocal producer
        if producer is None:
            producer = AIOKafkaProducer(bootstrap_servers=broker, linger_ms=2, max_batch_size=256 * 1024)
            await producer.start()
        async for events in stream.noack_take(BLOCK_RECORDS, within=BLOCK_SECONDS):
            sent = [await producer.send(target, event.message.value, event.message.key) for event in events]
            await asyncio.gather(*sent)
            for event in events:
                await stream.ack(event)
            passed.add(len(events))


def add_naive(app: Any, source: Any, target: str, passed: Passed) -> None:
    from snownlp import SnowNLP

    topic = app.topic(target, key_serializer="raw", value_serializer="raw")

    @app.agent(source, concurrency=1)
    async def agent(stream: Any) -> None:
        async for event in stream.events():
            mention = json.loads(event.message.value)
            if text := mention.get("text"):
                mention["sentiment"] = SnowNLP(text).sentiments
            await topic.send(key=event.message.key, value=json.dumps(mention).encode())
            passed.add(1)


async def serve(chosen: argparse.Namespace) -> None:
    """Until it is ended. The app is made here because it belongs to the running loop."""
    app, passed = make_app(chosen.broker, chosen.group), Passed()
    source = app.topic(chosen.source, key_serializer="raw", value_serializer="raw")
    if chosen.agent == "pass":
        add_pass(app, chosen.broker, source, chosen.target, passed)
    else:
        add_naive(app, source, chosen.target, passed)
    app.finalize()
    await app.start()
    while True:
        await asyncio.sleep(_TOLD_EVERY_SECONDS)
        passed.tell()


def main() -> None:
    """Run one of them until TERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("agent", choices=("pass", "naive"))
    for name in ("broker", "group", "source", "target"):
        parser.add_argument(name)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
