"""What several suites need: a file of complaints like a real export, and the command as users call it."""

import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Before anything imports them: their assertions then say what they compared.
pytest.register_assert_rewrite("checkpoint_contract", "engine_contract")

# The same examples every time: a run that fails must fail again. HYPOTHESIS_PROFILE=search looks for new ones.
# Without deadlines: how long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", max_examples=500, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

COMMAND = Path(sys.executable).parent / "complaint-radar"
_WORDS = (
    "发动机异响4S店不处理", "变速箱顿挫严重", "车漆起泡要求更换", "天窗漏水多次维修未解决", "刹车失灵撞车，人受伤住院", "中控屏黑屏死机",
    "烧机油严重", "轮胎鼓包开裂", "空调不制冷", "销售承诺的礼品不兑现", "提车三个月不给上牌", "油耗过高与宣传不符", "物流太慢", "很满意",
)  # fmt: skip
_CARS = ("威驰", "凯美瑞", "速腾", "博越", "轩逸", "途观L")


def write_complaints(
    path: Path, rows: int, *, without_id: float = 0.25, days: int = 20, seed: int = 1, first: int = 0
) -> None:
    """An export like those of complaint portals: date, model, model year, title, id; a share of the ids is missing."""
    dice = random.Random(seed)
    with path.open("w" if first == 0 else "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if first == 0:
            writer.writerow(["date", "car_model", "batch", "desc", "id"])
        for number in range(first, first + rows):
            day = (number - first) * days // rows + (0 if first == 0 else days)
            date = f"2026-{1 + day // 28:02d}-{1 + day % 28:02d}"
            text = f"{dice.choice(_CARS)}{dice.choice(_WORDS)}" + (f"，电话139{number:08d}" if number % 5 == 0 else "")
            native = "" if dice.random() < without_id else str(480_000 + number)
            writer.writerow([date, dice.choice(_CARS), str(dice.randrange(2015, 2021)), text, native])


@dataclass
class Radar:
    """``complaint-radar`` over one configuration in a temporary folder."""

    folder: Path
    environment: dict[str, str]

    @property
    def config(self) -> Path:
        return self.folder / "radar.yaml"

    @property
    def data_dir(self) -> Path:
        return self.folder / "radar-data"

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **more,
        )

    def __call__(self, *arguments: str, fails: int = 0) -> str:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=240)
        assert process.returncode == fails, f"{arguments}: exit code {process.returncode}\n{out}\n{err}"
        return out if fails == 0 else out + err

    def rows(self, query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self("sql", query, "--format", "json"))["data"]
        return found

    def number(self, query: str) -> int:
        (row,) = self.rows(query)
        return int(next(iter(row.values())))


@pytest.fixture
def radar(tmp_path: Path) -> Callable[..., Radar]:
    """Makes a configuration over ``complaints.csv`` in the test's folder."""

    def make(*, sources: Sequence[str] = (), more: str = "detection: {step: 1d}") -> Radar:
        listed = sources or (
            "{name: cars, type: files, channel: review, path: complaints.csv, "
            "fields: {native_id: id, text: desc, event_time: date, product: car_model, product_batch: batch}}",
        )
        lines = "".join(f"  - {one}\n" for one in listed)
        (tmp_path / "radar.yaml").write_text(
            f"sources:\n{lines}admin: {{port: 0}}\npoll_interval: 1s\n{more}\n", encoding="utf-8"
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RADAR_")}
        return Radar(tmp_path, environment)

    return make


@pytest.fixture
def complaints() -> Callable[..., None]:
    """See ``write_complaints``."""
    return write_complaints


@pytest.fixture
def radar_command() -> Path:
    """The installed command."""
    return COMMAND
