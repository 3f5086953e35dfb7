"""What of Faust's own behaviour is replaced, and why. Checked on the versions named below, and on no other.

1. **Reads committed only.** Faust reads aborted and unfinished transactions too: on a topic written in transactions it
   delivered 600 aborted and 30 open records beside 2,400 committed ones. Its only setting for it belongs to its
   ``exactly_once`` mode, which does not work.
2. **Commits nothing.** Positions are committed by ``kafka_checkpoint``, in the transaction of what they gave rise to.
   Faust's own commit would come later, and would take away the note that stands beside a position.
3. **Fetches what is there.** Faust waits up to 1.5 s for a fetch to fill; here it is 0.25 s, and large records are taken.
4. **Ends.** Faust's loop waits, blocked, for the consumer's thread to end; that thread may be in a rebalance and wait for
   the loop. (Seen when two workers were stopped at once.) Here it is waited for a few seconds only, and the thread does not
   keep the process alive. The group then misses this member's farewell and waits for its session instead.
5. **Tells what keeps it out of its group.** Of a right that was taken away aiokafka tells whoever fetches by its front door.
   Faust fetches behind it, and would wait for partitions for ever: see ``group_error``.
6. **Hands records over by the fetch.** Each on its own costs more than to score it: four tasks to wait for, an event, an
   acknowledgement. Here one message of Faust's holds what a fetch gave of one partition. That is bounded by bytes.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode.threads import WorkerThread

from pipeline.errors import TerminalError

_LEAVE_SECONDS = 5.0

CHECKED = {"faust-streaming": "0.15.3", "aiokafka": "0.14.0"}


def assert_checked_versions() -> None:
    """Refuse to run on versions whose inner workings nobody has looked at.

    Raises:
        TerminalError: another version is installed.
    """
    for name, checked in CHECKED.items():
        if (found := version(name)) != checked:
            raise TerminalError(f"{name} {found} is installed; the Kafka workers were checked on {checked} only")


class _LeavingThread(WorkerThread):
    def __init__(self, service: Any, **options: Any) -> None:
        super().__init__(service, **options)
        self.daemon = True  # 4

    def stop(self) -> None:
        self.is_stopped.wait(_LEAVE_SECONDS)  # 4


class Fetched(ConsumerMessage):
    """Consecutive records of one partition as one message of Faust's; its offset is that of the last."""

    def __init__(self, tp: TP, records: Sequence[Any], generation: int) -> None:
        last = records[-1]
        super().__init__(
            tp.topic,
            tp.partition,
            last.offset,
            last.timestamp / 1000,
            last.timestamp_type,
            None,
            None,
            b"",
            None,
            tp=tp,
            generation_id=generation,
        )
        self.records = records


class _CommittedConsumerThread(driver.AIOKafkaConsumerThread):
    Worker = _LeavingThread

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # 1
        consumer._fetch_max_wait_ms = 250  # 3
        return consumer


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> Any:
        return _CommittedConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Fetched]]:
        """See 6. What a rebalance has overtaken is left: it is read again from what is committed."""
        fetched, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if not fetched or self.should_stop:
            return
        if not self.flow_active:
            await self.perform_seek()
            return
        for tp, records in fetched.items():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if active is None or tp in active or tp in self._buffered_partitions:
                yield tp, Fetched(TP(*tp), records, generation)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        return True  # 2

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Its warnings speak of commits, which are not Faust's here; liveness is told by ``health``."""


class CommittedTransport(driver.Transport):
    """Faust's transport, reading committed records and committing nothing."""

    Consumer = _Consumer


def group_error(app: Any) -> Exception | None:
    """What keeps the consumer out of its group for good; None: nothing known."""
    consumer = getattr(getattr(app.consumer, "_thread", None), "_consumer", None)  # 5
    found: Exception | None = getattr(getattr(consumer, "_coordinator", None), "_pending_exception", None)
    return found
