"""``complaint-radar demo``: the embedded runtime over a scenario, told as it happens, and checked."""

import csv
import io
import tempfile
import time
from pathlib import Path

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from pipeline.alerting import notice
from pipeline.errors import ConfigurationError
from pipeline.runtime.embedded import EmbeddedRuntime, open_engine, pseudonym_key
from pipeline.scenarios.judge import judge
from pipeline.scenarios.story import POLICY, ZONE, Query, Scenario, load, names
from pipeline.scenarios.world import World
from pipeline.scoring.scorer import Scorer
from pipeline.storage.embedded import EmbeddedEngine
from schemas.signal import Signal


def list_scenarios() -> None:
    """Print the names and titles of all scenarios."""
    table = Table("--scenario", "", "", box=None, pad_edge=False)
    for scenario in map(load, names()):
        table.add_row(scenario.name, scenario.title.zh, scenario.title.en)
    Console(highlight=False).print(table)


def demo(name: str, data_dir: Path | None) -> int:
    """Replay a scenario; 0 only if every expected signal was raised and no other.

    Raises:
        ConfigurationError: there is no such scenario, or the folder is not empty.
    """
    scenario = load(name)
    path = data_dir or Path(tempfile.mkdtemp(prefix="complaint-radar-demo-"))
    if path.exists() and any(path.iterdir()):
        raise ConfigurationError(f"--data-dir: {path} is not empty; the demo starts in a new folder")
    engine = open_engine(path)
    try:
        return _Show(scenario, path).run(engine)
    finally:
        engine.close()


class _Show:
    """One scenario on the console."""

    def __init__(self, scenario: Scenario, path: Path) -> None:
        self._scenario = scenario
        self._path = path
        self._names = {product.id: product.name for product in scenario.products}
        self._console = Console(highlight=False)
        self._told: list[Signal] = []

    def run(self, engine: EmbeddedEngine) -> int:
        """Replay it and tell of it; the exit code."""
        begin = time.monotonic()
        self._introduce()
        mentions = self._replay(engine)
        self._console.print(f"\n{mentions:,} 条提及 mentions, {time.monotonic() - begin:.1f} s\n")
        self._console.print(self._table())
        for query in self._scenario.queries:
            self._answer(query, engine)
        return self._verdict()

    def _introduce(self) -> None:
        scenario = self._scenario
        self._console.print(
            f"[bold]客户异议雷达 Complaint Radar[/bold] · {scenario.days} 天回放 / {scenario.days} days replayed · "
            f"{len(scenario.products)} 个产品 products · {len(scenario.catalogue())} 个批次 lots\n"
        )
        for title, story in zip(scenario.title.both, scenario.story.both, strict=True):
            self._console.print(f"[bold]{title}[/bold]: {story}")
        self._console.print()

    def _replay(self, engine: EmbeddedEngine) -> int:
        """The number of mentions."""
        scenario, catalogue = self._scenario, self._scenario.catalogue()
        world = World(scenario, pseudonym_key(self._path))
        runtime = EmbeddedRuntime(engine, [world], catalogue, POLICY, Scorer(catalogue), self._tell)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("天 days"),
            TimeElapsedColumn(),
        )
        try:
            with Progress(*columns, console=self._console) as progress:
                task = progress.add_task("回放 replay", total=scenario.days)
                for position in runtime.run_pass(block_size=1):
                    progress.update(task, completed=int(position.get(world.source_id, scenario.days)))
                runtime.close_history()
        finally:
            runtime.close()
        return runtime.mentions

    def _tell(self, signal: Signal) -> None:
        self._told.append(signal)
        if signal.event == "opened":
            self._console.print(self._panel(signal))

    def _panel(self, signal: Signal) -> Panel:
        lines = Text()
        for language in ("zh", "en"):
            lines.append(notice.headline(signal, language, self._names) + "\n", style="bold")
            lines.append("  " + notice.numbers(signal, language, ZONE, "1d") + "\n")
            if drivers := notice.drivers(signal, language):
                lines.append("  " + drivers + "\n")
        for quote in notice.quotes(signal, 2):
            lines.append(f"  「{quote}」\n", style="italic")
        lines.rstrip()
        return Panel(lines, border_style="red" if signal.tier == "page" else "yellow")

    def _table(self) -> Table:
        table = Table(title="信号 signals", title_justify="left", box=box.SIMPLE, pad_edge=False)
        for column in (
            "始于\nsince",
            "级别\ntier",
            "产品 · 批次\nproduct · lot",
            "异议\nobjection",
            "声音 / 预期\nvoices / expected",
            "倍数\nratio",
        ):
            table.add_column(column)
        for signal in (one for one in self._told if one.event == "opened"):
            severe = signal.kind == "severe"
            table.add_row(
                notice.day(signal, ZONE),
                signal.tier,
                f"{notice.subject_name(signal, 'zh', self._names)} · {signal.product_batch_id}",
                notice.objection(signal, "zh"),
                f"{signal.voices}" if severe else f"{signal.observed} / {signal.expected:.1f}",
                "–" if severe else f"{signal.rate_ratio:.1f}×",
            )
        return table

    def _answer(self, query: Query, engine: EmbeddedEngine) -> None:
        rows = list(csv.reader(io.StringIO(engine.query(query.sql, "CSVWithNames").decode())))
        table = Table(*rows[0], box=None, pad_edge=False)
        for row in rows[1:]:
            table.add_row(*row)
        self._console.print(f"\n[bold]{' · '.join(query.title.both)}[/bold]")
        self._console.print(query.sql, style="dim", markup=False)
        self._console.print(table)

    def _verdict(self) -> int:
        """What was expected and what came; the exit code."""
        missing, extra = judge(self._scenario, self._told)
        shortfall, path = self._scenario.shortfall, self._path
        if not missing and not extra:
            number = len(self._scenario.expected)
            self._console.print(
                f"\n[green]✓[/green] {number} 个应有的信号都已发出，此外没有误报 · "
                f"every expected signal came ({number}), and no other"
            )
        for what, found, known in (("missing", missing, shortfall.missing), ("not expected", extra, shortfall.extra)):
            for one in found:
                self._console.print(f"[red]✗ {what}:[/red] {one}")
            if found and known:
                self._console.print(f"  已知不足 known shortfall: {known.zh} {known.en}")
        self._console.print(
            f"\n数据库 database: {path}\n"
            f"  complaint-radar sql --data-dir {path} 'SELECT * FROM v_signals' --format json\n"
            f"  complaint-radar replay --data-dir {path} SIGNAL_ID\n"
            "其他剧本 other scenarios: complaint-radar demo --list\n"
            "用自己的文件 your own file: 写一份 radar.yaml（见 README）write a radar.yaml (see README), then\n"
            "  complaint-radar run --config radar.yaml --until-end"
        )
        return 1 if missing or extra else 0
