"""A burst of complaints in a file, through Kafka, becomes a notice at a webhook behind a real Alertmanager."""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alert_chain import alertmanager_config, await_alertmanager, prometheus_config
from chaos import server_section
from exporting import Exporter
from servers import Alertmanager, ClickHouse, Kafka, Prometheus
from streams import source
from system import System
from webhook import Webhook

HOUR_MS = 3_600_000
QUIET = ("很好用，推荐", "物流很快", "收到，还没用", "外观漂亮", "性价比高")
FAULTS = (
    "噪音特别大",
    "用了三天就异响",
    "漏水，地板都湿了",
    "壶盖松动",
    "加热一半就停",
    "底座裂开",
    "异味很重",
    "开关失灵",
)
MOODS = ("质量太差", "太气人了", "很失望", "不能用了", "真是糟心", "后悔买了")

pytestmark = pytest.mark.timeout(180)


def write_burst(path: Path, now_ms: int) -> None:
    """Ten quiet days of two lots; in the last whole hours lot B7 is complained about; one customer was hurt just now."""
    dice = random.Random(3)
    last = now_ms // HOUR_MS * HOUR_MS
    records = []

    def add(time_ms: int, lot: str, text: str) -> None:
        number = str(len(records))
        records.append({"id": number, "text": text, "time": time_ms, "author": number, "product": "壶", "lot": lot})

    def complaint() -> str:
        return f"{dice.choice(FAULTS)}，{dice.choice(MOODS)}，{dice.choice(FAULTS)}"

    for hour in range(240, 0, -1):
        for lot in ("A1", "B7"):
            noisy = lot == "B7" and hour <= 3
            for _ in range(12 if noisy else dice.randrange(1, 4)):
                text = complaint() if noisy or dice.random() < 0.03 else dice.choice(QUIET)
                add(last - hour * HOUR_MS + dice.randrange(HOUR_MS), lot, text)
    add(now_ms - 5000, "A1", "充电时爆炸，手被炸伤住院")
    records.sort(key=lambda one: int(str(one["time"])))
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), encoding="utf-8")


@pytest.fixture
def system(tmp_path: Path, kafka: Kafka, clickhouse: ClickHouse) -> Iterator[System]:
    made = System(
        tmp_path / "system",
        {
            "sources": [source("shop", "burst.jsonl", max_lateness="0s")],
            "catalogue": "catalogue.csv",
            **server_section(kafka, clickhouse, "burst"),
        },
    )
    catalogue = "product_id,name,product_batch_id\nkettle,壶,A1\nkettle,壶,B7\n"
    (made.folder / "catalogue.csv").write_text(catalogue, encoding="utf-8")
    made.make_topics()
    yield made
    made.stop()


def test_from_a_file_to_a_person(
    tmp_path: Path,
    system: System,
    prometheus: Callable[..., Prometheus],
    alertmanager: Callable[..., Alertmanager],
) -> None:
    assert system.settings.kafka is not None
    for stage in ("score", "detect"):
        system.start_stage(stage)
    with Webhook() as webhook, Exporter(tmp_path, system.settings.kafka) as exporter:
        router = alertmanager(config=alertmanager_config(webhook, tmp_path))
        await_alertmanager(prometheus(config=prometheus_config(exporter, router, tmp_path)))
        write_burst(system.folder / "burst.jsonl", time.time_ns() // 1_000_000)
        system.run("connect", "--until-end", "--close")
        (page,) = webhook.wait(["firing"], 60, alertname="RadarSignalPage")
        (ticket,) = webhook.wait(["firing"], 60, alertname="RadarSignalTicket")
    assert (page.labels["kind"], page.labels["subject_id"], page.labels["product_batch_id"]) == (
        "severe",
        "kettle",
        "A1",
    )
    assert (ticket.labels["kind"], ticket.labels["subject_id"]) == ("spike", "kettle")
    assert (ticket.labels["product_batch_id"], ticket.labels["objection_type"]) == ("B7", "product_quality")
