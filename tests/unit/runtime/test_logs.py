"""What the libraries say is passed on seldom, what we say always."""

import logging

from pipeline.runtime.logs import Seldom


def record(name: str) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "", 0, "away", (), None)


def test_one_of_many_passes() -> None:
    seldom = Seldom()
    assert [seldom.filter(record("aiokafka.client")) for _ in range(3)] == [True, False, False]
    assert seldom.filter(record("aiokafka.producer"))
