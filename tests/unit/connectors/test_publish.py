"""Where a mention goes is what Kafka's own clients would have chosen."""

from kafka.record import util

from connectors.publish import partition_of


def test_known_partitions() -> None:
    # murmur2 of Kafka's Java client (org.apache.kafka.common.utils.UtilsTest): 21 → -973932308, foobar → -790332482
    assert partition_of(b"21", 12) == (-973932308 & 0x7FFFFFFF) % 12
    assert partition_of(b"foobar", 12) == (-790332482 & 0x7FFFFFFF) % 12


def test_checksums_are_not_computed_in_python() -> None:
    # 8 MB/s, and the processes that read and write with kafka-python do little else then.
    assert util.crc32c_c is not None
