"""Prometheus and Alertmanager as we ship their configuration, made quick for tests."""

import http.client
import json
import time
from contextlib import closing
from pathlib import Path

import yaml
from exporting import Exporter
from servers import Alertmanager, Prometheus
from webhook import Webhook

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
TOKEN = "of this test"  # noqa: S105 - no secret


def alertmanager_config(webhook: Webhook, folder: Path) -> str:
    """Ours, with the test's receiver and without its waiting."""
    config = yaml.safe_load((DEPLOY / "alertmanager/alertmanager.yaml").read_text(encoding="utf-8"))
    (folder / "token").write_text(TOKEN, encoding="ascii")
    for receiver in config["receivers"]:
        (hook,) = receiver["webhook_configs"]
        hook["url"] = f"{webhook.url}/{receiver['name']}"
        hook["http_config"]["authorization"]["credentials_file"] = str(folder / "token")
    for route in config["route"]["routes"]:
        route |= {"group_wait": "0s", "group_interval": "1s"}
    return yaml.safe_dump(config)


def prometheus_config(exporter: Exporter, alertmanager: Alertmanager, folder: Path) -> str:
    """Ours, once a second instead of every five."""
    config = yaml.safe_load((DEPLOY / "prometheus/scrape.yaml").read_text(encoding="utf-8"))
    (job,) = (one for one in config["scrape_configs"] if one["job_name"] == "complaint-radar-exporter")
    job |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    job["static_configs"] = [{"targets": [f"127.0.0.1:{exporter.port}"]}]
    rules = yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        group["interval"] = "1s"
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    return yaml.safe_dump(
        {
            "rule_files": [str(folder / "rules.yaml")],
            "scrape_configs": [job],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager.address]}]}]},
        }
    )


def await_alertmanager(prometheus: Prometheus) -> None:
    """What fires before Prometheus knows its Alertmanager is sent a minute later."""
    until = time.monotonic() + 20
    while True:
        with closing(http.client.HTTPConnection(prometheus.address, timeout=5)) as connection:
            connection.request("GET", "/api/v1/alertmanagers")
            if json.loads(connection.getresponse().read())["data"]["activeAlertmanagers"]:
                return
        assert time.monotonic() < until
        time.sleep(0.1)
