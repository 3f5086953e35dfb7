"""The command ``complaint-radar``. Each command imports what it needs when it is called: ``--help`` stays quick."""

import signal as signals
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import ConfigurationError, RadarError

if TYPE_CHECKING:
    from pipeline.runtime.known_rules import Present
    from pipeline.storage.engine import Engine

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Complaint Radar 客户异议雷达: objection spikes per product batch, early and explained.",
)
dead_letters = typer.Typer(
    no_args_is_help=True, help="Records that could not be taken in: list them, see them, read them again."
)
app.add_typer(dead_letters, name="dead-letters")
policies = typer.Typer(
    no_args_is_help=True, help="The rules of detection: what they mean, and what they would have done."
)
app.add_typer(policies, name="policy")

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
DataDirOption = Annotated[Path | None, typer.Option("--data-dir", help="The data folder itself, instead of --config.")]


class OutputFormat(StrEnum):
    """How `sql` prints its rows."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class Stage(StrEnum):
    """What a `worker` does."""

    SCORE = "score"
    DETECT = "detect"
    STORE = "store"


def main() -> None:
    """Entry point: errors that are meant to happen become one message and an exit code, not a trace."""
    try:
        app()
    except ConfigurationError as error:
        typer.echo(f"configuration: {error}", err=True)
        sys.exit(EXIT_CONFIGURATION)
    except RadarError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(EXIT_FAILED)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("complaint-radar"))
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    pass


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set: the block in hand is finished and committed. A second one ends at once."""
    stop = threading.Event()
    before = {number: signals.getsignal(number) for number in (signals.SIGTERM, signals.SIGINT)}

    def restore() -> None:
        for number, handler in before.items():
            signals.signal(number, handler)

    def ask_to_stop(*_: object) -> None:
        stop.set()
        restore()

    for number in before:
        signals.signal(number, ask_to_stop)
    try:
        yield stop
    finally:
        restore()


def _close_only_at_end(close: bool, until_end: bool) -> None:
    if close and not until_end:
        raise ConfigurationError("--close: only with --until-end; while sources go on, no history is complete")


def _log_to_stderr() -> None:
    from pipeline.runtime.logs import log_to_stderr

    log_to_stderr()


@app.command()
def run(
    config: ConfigOption = Path("radar.yaml"),
    until_end: Annotated[
        bool, typer.Option("--until-end", help="End when the sources have given all they have.")
    ] = False,
    close: Annotated[
        bool, typer.Option("--close", help="With --until-end: the history is complete, decide its last steps too.")
    ] = False,
) -> None:
    """Read the sources, score, detect and store, in one process and one data folder."""
    from pipeline.runtime.run import run as run_embedded
    from pipeline.settings import load

    _close_only_at_end(close, until_end)
    _log_to_stderr()
    with _stop_on_signals() as stop:
        run_embedded(load(config), stop, until_end=until_end, close=close)


@app.command()
def connect(
    config: ConfigOption = Path("radar.yaml"),
    until_end: Annotated[
        bool, typer.Option("--until-end", help="End when the sources have given all they have.")
    ] = False,
    close: Annotated[
        bool, typer.Option("--close", help="With --until-end: the history is complete, decide its last steps too.")
    ] = False,
) -> None:
    """Publish what the sources have on Kafka, exactly once. One process for all sources."""
    from pipeline.runtime.connect import connect as run_connect
    from pipeline.settings import load

    _close_only_at_end(close, until_end)
    _log_to_stderr()
    with _stop_on_signals() as stop:
        run_connect(load(config), stop, until_end=until_end, close=close)


@app.command()
def worker(
    stage: Annotated[Stage, typer.Option("--stage", help="score, detect or store.")],
    config: ConfigOption = Path("radar.yaml"),
) -> None:
    """Run one stage between Kafka topics, or from them to ClickHouse. Start more of the same to share the work."""
    from pipeline.runtime.worker import work
    from pipeline.settings import load

    _log_to_stderr()
    with _stop_on_signals() as stop:
        work(load(config), stage.value, stop)


@app.command()
def topics(
    config: ConfigOption = Path("radar.yaml"),
    check: Annotated[
        bool, typer.Option("--check", help="Only say what differs; exit code 1 if anything does.")
    ] = False,
) -> None:
    """Make the topics on the brokers what they are stated to be; what only a person can do is named."""
    from pipeline.runtime import topics as brokers
    from pipeline.runtime.process import brokers_of
    from pipeline.settings import load

    settings = brokers_of(load(config))
    outcome = brokers.Outcome((), tuple(brokers.differences(settings))) if check else brokers.create(settings)
    for line in outcome.done:
        typer.echo(line)
    for one in outcome.left:
        typer.echo(str(one))
    differing = any(one.doer != "nobody" for one in outcome.left)
    if not outcome.done and not differing:
        typer.echo("nothing to do: the topics are as stated")
    raise typer.Exit(EXIT_FAILED if check and differing else 0)


@app.command()
def check(config: ConfigOption = Path("radar.yaml")) -> None:
    """Look whether all that the configuration needs is there; changes nothing. Exit code 1 if something is not."""
    from pipeline.runtime.preflight import check as look
    from pipeline.settings import load

    failed = False
    for one in look(load(config)):
        typer.echo(f"{one.state:<4}  {one.what}: {one.words}")
        failed = failed or one.state == "fail"
    raise typer.Exit(EXIT_FAILED if failed else 0)


@app.command()
def exporter(config: ConfigOption = Path("radar.yaml")) -> None:
    """Serve the live signals, lags and sources to Prometheus. One process for the whole system."""
    from pipeline.runtime.exporter import export
    from pipeline.settings import load

    _log_to_stderr()
    with _stop_on_signals() as stop:
        export(load(config), stop)


@app.command()
def bootstrap(config: ConfigOption = Path("radar.yaml")) -> None:
    """Load the history that the sources hold, wait until it is stored, say from when a spike is possible. Pages nobody."""
    from pipeline.runtime.bootstrap import bootstrap as load_history
    from pipeline.settings import load

    _log_to_stderr()
    with _stop_on_signals() as stop:
        load_history(load(config), stop, typer.echo)


@app.command()
def rescore(config: ConfigOption = Path("radar.yaml")) -> None:
    """Score again what the raw topic still holds, into rows of a new generation. Nothing is counted again, nobody alerted."""
    from pipeline.runtime.process import brokers_of, server_engine
    from pipeline.runtime.rescore import rescore as score_again
    from pipeline.settings import load

    settings = load(config)
    engine = server_engine(settings)
    try:
        rows = score_again(brokers_of(settings), settings.scoring, engine, typer.echo)
    finally:
        engine.close()
    typer.echo(f"{rows} rows written")


@app.command()
def rebuild(config: ConfigOption = Path("radar.yaml")) -> None:
    """The state topic of detection was lost: make it again of the step counts in the database. Stop detect workers first."""
    from connectors.catalogue import read_catalogue
    from pipeline.runtime.process import brokers_of, server_engine
    from pipeline.runtime.rebuild import rebuild_state
    from pipeline.settings import load

    settings = load(config)
    catalogue = read_catalogue(settings.catalogue, settings.time_zone) if settings.catalogue else []
    engine = server_engine(settings)
    try:
        rebuild_state(settings, brokers_of(settings), engine, catalogue, typer.echo)
    finally:
        engine.close()


@app.command()
def demo(
    keep: Annotated[
        Path | None, typer.Option("--data-dir", help="Where to leave the database; by default a new folder.")
    ] = None,
    scenario: Annotated[str, typer.Option(help="Its name (see --list), or the path of a YAML file.")] = "demo",
    list_only: Annotated[bool, typer.Option("--list", help="Only say which scenarios there are.")] = False,
) -> None:
    """Replay a scripted story and check that every signal that must come came, and no other; by default 60 days."""
    from pipeline.runtime.demo import demo as run_demo
    from pipeline.runtime.demo import list_scenarios

    if list_only:
        list_scenarios()
        return
    raise typer.Exit(run_demo(scenario, keep))


@app.command()
def score(
    source: Annotated[Path, typer.Option("--input", help='JSON lines: {"id", "text", "channel"} or any mention.')],
    target: Annotated[Path, typer.Option("--output", help="JSON lines, one for each input line, in its order.")],
    catalogue: Annotated[Path | None, typer.Option("--catalogue", help="Products and lots, as for `run`.")] = None,
    time_zone: Annotated[str, typer.Option(help="Zone of the catalogue's days.")] = "Asia/Shanghai",
    sentiment: Annotated[str, typer.Option(help="builtin or snownlp.")] = "builtin",
) -> None:
    """Score texts: sentiment, objections, speech act, emotion, severity, product and lot."""
    from connectors.catalogue import read_catalogue
    from pipeline.scoring.score_lines import score_lines
    from pipeline.scoring.scorer import Scorer

    if sentiment not in ("builtin", "snownlp"):
        raise ConfigurationError(f"--sentiment: {sentiment!r} does not do; builtin or snownlp")
    if not source.is_file():
        raise ConfigurationError(f"--input: {source} is no file")
    if target.is_dir() or not target.parent.is_dir():
        raise ConfigurationError(f"--output: {target} is no file in a folder that exists")
    scorer = Scorer(read_catalogue(catalogue, time_zone) if catalogue else [], sentiment=sentiment)  # type: ignore[arg-type]
    # Written beside it and renamed: a run that fails leaves no half of a file, and the input may be the output.
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        with source.open("rb") as lines, unfinished.open("wb") as out:
            out.writelines(line + b"\n" for line in score_lines(scorer, lines))
        unfinished.replace(target)
    except OSError as error:
        raise ConfigurationError(f"--output: {target} cannot be written: {error.strerror}") from None
    finally:
        unfinished.unlink(missing_ok=True)


@app.command()
def backtest(
    counts: Annotated[
        Path | None,
        typer.Option(
            "--counts", help="CSV: date,product,batch,objection_type,count[,total] or series,t,count[,total]."
        ),
    ] = None,
    mentions: Annotated[
        Path | None, typer.Option("--mentions", help="Records as those of a configured source: scored, then detected.")
    ] = None,
    from_clickhouse: Annotated[
        bool, typer.Option("--from-clickhouse", help="The step counts of products that are stored, with --since.")
    ] = False,
    source: Annotated[
        str | None, typer.Option("--source", help="With --mentions, of several sources: whose records they are.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="A day such as 2026-03-01: what is before is history only.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Another policy, against the present one; as for `policy check`.")
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option("--events", help="CSV: subject_kind,subject_id,product_batch_id,objection_type,start,end."),
    ] = None,
    most: Annotated[
        float | None, typer.Option("--max-signals-per-week", min=0, help="More of them, and the exit code is 1.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="HTML: a page with a picture of each signal's series.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="CSV: a row for each count, with score and alarm; not of --mentions.")
    ] = None,
    step_days: Annotated[
        float | None, typer.Option("--step-days", help="With --counts: days in a step of column t; 7 unless said.")
    ] = None,
    config: ConfigOption = Path("radar.yaml"),
    data_dir: DataDirOption = None,
) -> None:
    """Replay the detector over history: which signals a policy opens. Exit code 1: too many a week, or an event is missed."""
    if [counts is not None, mentions is not None, from_clickhouse].count(True) != 1:
        raise ConfigurationError("--counts, --mentions, --from-clickhouse: one of them is needed, and no more")
    if counts is not None:
        if out is None or any(option is not None for option in (source, since, policy, events, most, report, data_dir)):
            raise ConfigurationError("--counts: needs --out, and goes with --step-days only")
        _backtest_counts(counts, out, step_days)
        return
    if step_days is not None or (out is not None and mentions is not None):
        raise ConfigurationError("--step-days, --out: of counts only")
    if mentions is not None and data_dir is not None:
        raise ConfigurationError(
            "--mentions: needs the configuration, for it says which column is what; not --data-dir"
        )
    from pipeline.runtime.policy_trial import Asked, try_policy

    asked = Asked(mentions, source, since, policy, events, most, report, out)
    with _progress() as tell:
        lines, passed = try_policy(asked, _present(config, data_dir), lambda: _asking(config, data_dir), tell)
    for line in lines:
        typer.echo(line)
    raise typer.Exit(0 if passed else EXIT_FAILED)


def _backtest_counts(counts: Path, out: Path, step_days: float | None) -> None:
    from pipeline.runtime.backtest import backtest as replay_counts

    with _progress() as tell:
        told = replay_counts(counts, out, step_days=step_days, progress=tell)
    typer.echo(f"{len(told.scores)} counts in {told.steps} steps, {told.opened} spikes opened: {out}", err=True)


@app.command()
def replay(
    signal_id: Annotated[
        str, typer.Argument(metavar="SIGNAL_ID", help="As v_signals has it; its beginning is enough.")
    ],
    config: ConfigOption = Path("radar.yaml"),
    data_dir: DataDirOption = None,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="The configuration file of then, if detection has changed in it since."),
    ] = None,
) -> None:
    """Make a signal again of what is stored and say whether it comes out equal. Exit code 1: it differs, 2: cannot be told."""
    from pipeline.runtime.known_rules import known_rules
    from pipeline.runtime.replay_signal import replay_signal
    from pipeline.settings import load

    settings = None if data_dir else load(config)
    known = known_rules(settings, _data_dir(config, data_dir), load(policy) if policy else None)
    try:
        with _asking(config, data_dir) as query:
            code = replay_signal(query, signal_id, known, typer.echo)
    except ConfigurationError:
        raise
    except RadarError as error:  # 1 would say that the signal differs
        typer.echo(f"cannot be told: {error}", err=True)
        code = EXIT_CONFIGURATION
    raise typer.Exit(code)


@policies.command("check")
def check_policy(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="A configuration, or the keys of its `detection` alone; else --config."),
    ] = None,
    config: ConfigOption = Path("radar.yaml"),
    data_dir: DataDirOption = None,
    since: Annotated[
        str | None, typer.Option("--since", help="A day: what it would have done with the counts stored since then.")
    ] = None,
) -> None:
    """Say in plain words what a detection policy means and what works against what; --since: what it would have done."""
    from pipeline.runtime.policy_check import Context, explain, refuse, warnings
    from pipeline.runtime.policy_trial import Asked, policy_of, try_policy

    present = _present(config, data_dir)
    tried, context = policy_of(file, present), Context(present.lots, present.settings.sources)
    refuse(tried, context)
    for line in explain(tried, context):
        typer.echo(line)
    for line in warnings(tried, context):
        typer.echo(f"warning: {line}")
    if since is not None:
        with _progress() as tell:
            lines, _ = try_policy(Asked(since=since, policy=file), present, lambda: _asking(config, data_dir), tell)
        for line in lines:
            typer.echo(line)


def _present(config: Path, data_dir: Path | None) -> "Present":
    """The rules in force: of the configuration, or those that a data folder's state was last given."""
    from pipeline.runtime.known_rules import of_configuration, of_folder
    from pipeline.settings import load

    return of_configuration(load(config)) if data_dir is None else of_folder(_data_dir(config, data_dir))


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar of the steps done on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _done, _of: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(
        BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
    )
    with bar:
        task = bar.add_task("", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="A SELECT; tables and views are described in docs/tables.md.")],
    config: ConfigOption = Path("radar.yaml"),
    data_dir: DataDirOption = None,
    output: Annotated[OutputFormat, typer.Option("--format", help="table, json or csv.")] = OutputFormat.TABLE,
) -> None:
    """Ask the database: the server of the configuration if it names one, else that of the data folder, whoever holds it."""
    from pipeline.settings import load
    from pipeline.storage.sql_service import ask

    if data_dir is None and load(config).clickhouse is not None:
        from pipeline.storage.answers import shown

        engine = _engine(config, None)
        try:
            typer.echo(shown(engine.query(query), output.value), nl=False)
        finally:
            engine.close()
        return
    sys.stdout.buffer.write(ask(_data_dir(config, data_dir), query, output.value))


@app.command()
def migrate(
    config: ConfigOption = Path("radar.yaml"),
    data_dir: DataDirOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only say what would be done; exit code 1 if anything would.")
    ] = False,
) -> None:
    """Bring the database to this version's tables and views."""
    from pipeline.storage import migrations

    engine = _engine(config, data_dir)
    try:
        names = [one.name for one in migrations.pending(engine)] if check else migrations.migrate(engine)
    finally:
        engine.close()
    for name in names:
        typer.echo(f"{'pending' if check else 'applied'}: {name}")
    if not names:
        typer.echo("nothing to do: the database is at this version")
    raise typer.Exit(EXIT_FAILED if check and names else 0)


@dead_letters.command("list")
def list_dead_letters(
    config: ConfigOption = Path("radar.yaml"),
    data_dir: DataDirOption = None,
    reason: Annotated[str | None, typer.Option(help="Only those with this reason.")] = None,
    source: Annotated[str | None, typer.Option(help="Only those of this source.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 50,
) -> None:
    """The records refused, newest first."""
    from pipeline.storage import dead_letters as letters

    with _asking(config, data_dir) as query:
        found = letters.list_dead_letters(query, limit=limit, reason=reason, source=source)
    for one in found:
        typer.echo(
            f"{one.dead_letter_id}  {one.state:<8}  {one.source_id}  {one.reason:<14}  {one.locator}  {one.detail}"
        )
    typer.echo(f"{len(found)} dead letters", err=True)


@dead_letters.command("show")
def show_dead_letter(
    identity: Annotated[str, typer.Argument(metavar="ID", help="As `list` prints it; its beginning is enough.")],
    config: ConfigOption = Path("radar.yaml"),
    data_dir: DataDirOption = None,
) -> None:
    """One refused record, with its masked content."""
    from pipeline.storage import dead_letters as letters

    with _asking(config, data_dir) as query:
        letter = letters.show_dead_letter(query, identity)
    for name in letter.__struct_fields__:
        typer.echo(f"{name:<15} {getattr(letter, name)}")


@dead_letters.command("replay")
def replay_dead_letters(
    identities: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="As `list` prints them; none: all.")
    ] = None,
    config: ConfigOption = Path("radar.yaml"),
    reason: Annotated[str | None, typer.Option(help="Only those with this reason.")] = None,
    source: Annotated[str | None, typer.Option(help="Only those of this source.")] = None,
) -> None:
    """Read refused records again at their source, as it is configured now.

    If `run` is at work it does so at its next turn, as it was configured when it started; else it is done here. What is
    refused again stays a dead letter.
    """
    from pipeline.settings import load

    settings = load(config)
    if settings.clickhouse is not None:
        from pipeline.runtime.replay import replay
    else:
        from pipeline.runtime.run import replay
    replay(settings, identities or [], reason, source, typer.echo)


def _engine(config: Path, data_dir: Path | None) -> "Engine":
    """The database: the server of the configuration if it names one, else that of the data folder."""
    from pipeline.settings import load

    if data_dir is None and (settings := load(config)).clickhouse is not None:
        from pipeline.runtime.process import server_engine

        return server_engine(settings)
    from pipeline.runtime.embedded import open_engine

    return open_engine(_data_dir(config, data_dir))


@contextmanager
def _asking(config: Path, data_dir: Path | None) -> Iterator[Callable[[str], bytes]]:
    """What runs a SELECT and gives JSON lines; the database of a data folder may be in use by another process."""
    from pipeline.settings import load

    if data_dir is None and load(config).clickhouse is not None:
        engine = _engine(config, None)
        try:
            yield engine.query
        finally:
            engine.close()
        return
    from pipeline.storage.sql_service import ask

    folder = _data_dir(config, data_dir)
    yield lambda query: ask(folder, query, "jsonl")


def _data_dir(config: Path, data_dir: Path | None) -> Path:
    if data_dir is not None:
        if not data_dir.is_dir():
            raise ConfigurationError(f"--data-dir: {data_dir} is no folder")
        return data_dir
    from pipeline.settings import load

    return load(config).data_dir
