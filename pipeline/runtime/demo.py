"""``complaint-radar demo``: the embedded runtime over the scripted world, told as it happens, and checked."""

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
from pipeline.runtime import demo_world
from pipeline.runtime.demo_world import DAYS, EXPECTED, ZONE, World
from pipeline.runtime.embedded import EmbeddedRuntime, open_engine, pseudonym_key
from pipeline.scoring.scorer import Scorer
from pipeline.storage.embedded import EmbeddedEngine
from schemas.policy import DetectionPolicy
from schemas.signal import Signal

QUERIES = (
    (
        "每个批次每万件的异议 · objecting voices per 10,000 units and day, by lot, last two weeks",
        """SELECT product_id, product_batch_id AS lot, sum(objecting_voices) AS voices, round(avg(rate), 2) AS daily_rate
FROM v_daily_rates
WHERE objection_type = 'product_quality' AND product_batch_id != '' AND day > '2026-04-15'
GROUP BY product_id, lot ORDER BY daily_rate DESC LIMIT 5""",
    ),
    (
        "他们在说什么 · what customers of the noisy lot say",
        """SELECT toDate(event_time, 'Asia/Shanghai') AS day, emotion, severity, substringUTF8(text, 1, 40) AS said
FROM v_mentions
WHERE product_batch_id = 'L2603' AND speech_act = 'complaint' AND has(objection_subtype, 'noise')
ORDER BY event_time DESC LIMIT 5""",
    ),
    (
        "促销：提及翻三倍，异议占比不变 · the promotion: three times the mentions, the same share of complaints",
        """SELECT if(toDate(event_time, 'Asia/Shanghai') BETWEEN '2026-03-25' AND '2026-03-28', 'promotion', 'other days') AS period,
  round(count() / uniq(toDate(event_time, 'Asia/Shanghai'))) AS mentions_a_day,
  round(100 * countIf(speech_act IN ('complaint', 'doubt')) / count(), 1) AS complaint_percent
FROM v_mentions WHERE product_id = 'phone-p9' GROUP BY period ORDER BY period DESC""",
    ),
)

PROMISE = 1 / 52
"""False signals a week over all lots: the sixty days must be told from one false signal a year."""

_NAMES = {product.product_id: product.name for product in demo_world.PRODUCTS}


def demo(data_dir: Path | None) -> int:
    """Run the demo; 0 only if every expected signal was raised and no other.

    Raises:
        ConfigurationError: the folder is not empty.
    """
    path = data_dir or Path(tempfile.mkdtemp(prefix="complaint-radar-demo-"))
    if path.exists() and any(path.iterdir()):
        raise ConfigurationError(f"--data-dir: {path} is not empty; the demo starts in a new folder")
    console = Console(highlight=False)
    begin = time.monotonic()
    opened: list[Signal] = []
    engine = open_engine(path)
    policy = DetectionPolicy(step="1d", time_zone=str(ZONE), false_signals_per_week=PROMISE)
    catalogue = demo_world.catalogue()
    console.print(
        f"[bold]客户异议雷达 Complaint Radar[/bold] · {DAYS} 天回放 / {DAYS} days replayed · "
        f"{len(_NAMES)} 个产品 products · {len(catalogue)} 个批次 lots\n"
    )
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("天 days"),
        TimeElapsedColumn(),
        console=console,
    )

    def tell(signal: Signal) -> None:
        if signal.event == "opened":
            opened.append(signal)
            console.print(_panel(signal))

    runtime = EmbeddedRuntime(engine, [World(pseudonym_key(path))], catalogue, policy, Scorer(catalogue), tell)
    try:
        with progress:
            task = progress.add_task("回放 replay", total=DAYS)
            for position in runtime.run_pass(block_size=1):
                progress.update(task, completed=int(position[World.source_id]))
            runtime.close_history()
        seconds = time.monotonic() - begin
        console.print(f"\n{runtime.mentions:,} 条提及 mentions, {seconds:.1f} s\n")
        console.print(_table(opened))
        _show_queries(console, engine)
    finally:
        runtime.close()
        engine.close()
    return _verdict(console, opened, path)


def _panel(signal: Signal) -> Panel:
    lines = Text()
    for language in ("zh", "en"):
        lines.append(notice.headline(signal, language, _NAMES) + "\n", style="bold")
        lines.append("  " + notice.numbers(signal, language, ZONE, "1d") + "\n")
        if drivers := notice.drivers(signal, language):
            lines.append("  " + drivers + "\n")
    for quote in notice.quotes(signal, 2):
        lines.append(f"  「{quote}」\n", style="italic")
    lines.rstrip()
    return Panel(lines, border_style="red" if signal.tier == "page" else "yellow")


def _table(opened: list[Signal]) -> Table:
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
    for signal in opened:
        severe = signal.kind == "severe"
        table.add_row(
            notice.day(signal, ZONE),
            signal.tier,
            f"{notice.subject_name(signal, 'zh', _NAMES)} · {signal.product_batch_id}",
            notice.objection(signal, "zh"),
            f"{signal.voices}" if severe else f"{signal.observed} / {signal.expected:.1f}",
            "–" if severe else f"{signal.rate_ratio:.1f}×",
        )
    return table


def _show_queries(console: Console, engine: EmbeddedEngine) -> None:
    for title, query in QUERIES:
        rows = list(csv.reader(io.StringIO(engine.query(query, "CSVWithNames").decode())))
        table = Table(*rows[0], box=None, pad_edge=False)
        for row in rows[1:]:
            table.add_row(*row)
        console.print(f"\n[bold]{title}[/bold]")
        console.print(query, style="dim", markup=False)
        console.print(table)


def _verdict(console: Console, opened: list[Signal], path: Path) -> int:
    raised = [(s.kind, s.subject_id, s.product_batch_id, s.objection_type, s.concentration.dimension) for s in opened]
    missing, extra = EXPECTED.difference(raised), set(raised).difference(EXPECTED)
    good = not missing and not extra and len(raised) == len(EXPECTED)
    if good:
        console.print(
            f"\n[green]✓[/green] {len(raised)} 个应有的信号都已发出；促销与转发风暴未误报 · "
            "every expected signal came; the promotion and the repost storm stayed quiet"
        )
    for one in sorted(missing):
        console.print(f"[red]✗ missing:[/red] {' / '.join(one)}")
    for one in sorted(extra):
        console.print(f"[red]✗ not expected:[/red] {' / '.join(one)}")
    if not good and not missing and not extra:
        console.print("[red]✗ a signal was opened twice[/red]")
    console.print(
        f"\n数据库 database: {path}\n"
        f"  complaint-radar sql --data-dir {path} 'SELECT * FROM v_signals' --format json\n"
        "用自己的文件 your own file: 写一份 radar.yaml（见 README）write a radar.yaml (see README), then\n"
        "  complaint-radar run --config radar.yaml --until-end"
    )
    return 0 if good else 1
