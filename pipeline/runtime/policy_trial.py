"""``complaint-radar backtest`` and ``policy check --since``: what a policy would have done with history, as against the present
one, and whether that will do.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import ConfigurationError
from pipeline.runtime import mentions_backtest, stored_backtest, trial_page
from pipeline.runtime.backtest import check_out
from pipeline.runtime.catalogues import version_of
from pipeline.runtime.known_rules import Present, named
from pipeline.runtime.trial import Progress, Trial, caught, read_events
from pipeline.runtime.trial_words import failures, summary, told, told_of_events, when
from pipeline.settings import load_policy
from pipeline.storage.engine import Query
from schemas.policy import DetectionPolicy


class Asked(NamedTuple):
    """What is wanted."""

    mentions: Path | None = None
    """The history; None: what is stored."""
    source: str | None = None
    since: str | None = None
    policy: Path | None = None
    """A file of another policy than the present one."""
    events: Path | None = None
    most: float | None = None
    """Signals a week."""
    report: Path | None = None
    out: Path | None = None


Opened = Callable[[], AbstractContextManager[Query]]
"""Opens the database."""


def policy_of(file: Path | None, present: Present) -> DetectionPolicy:
    """The policy of a file, or the present one.

    Raises:
        ConfigurationError: the file.
    """
    return present.policy if file is None else load_policy(file, present.settings).policy()


def try_policy(asked: Asked, present: Present, database: Opened, progress: Progress) -> tuple[list[str], bool]:
    """Replay history under a policy, and under the present one where that is another.

    Returns:
        What came of it, in lines; and whether it will do: not too many signals, no labelled event missed.

    Raises:
        ConfigurationError: what is asked for does not go together, or a file.
        TransientError, TerminalError: the database, or the file of mentions is damaged.
    """
    for path, option in ((asked.out, "--out"), (asked.report, "--report")):
        if path is not None:
            check_out(path, option)
    policies = list(dict.fromkeys((policy_of(asked.policy, present), present.policy)))
    events = [] if asked.events is None else read_events(asked.events, policies[0].time_zone)
    head, trials = (
        _of_store(asked, present, policies, database, progress)
        if asked.mentions is None
        else _of_mentions(asked.mentions, asked, present, policies, progress)
    )
    trial, other = trials[0], trials[1] if len(trials) > 1 else None
    head += [
        f"policy {version_of(trial.policy)}" + (f", against the present {present.policy_version}" if other else ""),
        f"from {when(trial.since, trial.policy)} until {when(trial.until, trial.policy)}, {trial.weeks:.1f} weeks",
    ]
    found, before = caught(events, trial), caught(events, other) if other else []
    wrong = list(failures(trial, asked.most, found))
    head.append(summary(trial, other))
    if asked.events is not None:
        head += told_of_events(found, trial, before)
    if asked.events is not None or asked.most is not None:
        head.append(f"will not do: {'; '.join(wrong)}" if wrong else "will do")
    if asked.report is not None:
        trial_page.write(asked.report, trial, other, head)
    return [*head, *told(trial, other)], not wrong


def _of_store(
    asked: Asked, present: Present, policies: list[DetectionPolicy], database: Opened, progress: Progress
) -> tuple[list[str], list[Trial]]:
    if asked.since is None:
        raise ConfigurationError("--from-clickhouse: needs --since, a day such as 2026-03-01")
    with database() as query:
        counted = stored_backtest.read(query, policies[0], asked.since)
    trials = []
    for number, policy in enumerate(policies):
        out = asked.out if number == 0 else None
        trials.append(stored_backtest.backtest(counted, policy, present.catalogue, out, progress))
    head = [
        "spikes of products, of stored step counts; only mentions (backtest --mentions) tell of harm, carriers, regions, channels"
    ]
    made = named(counted.counts[-1].versions, "policy")
    if made != present.policy_version:
        head.append(
            f"what is stored was last decided by policy {made or 'of no version'}, the present one is {present.policy_version}"
        )
    return head, trials


def _of_mentions(
    path: Path, asked: Asked, present: Present, policies: list[DetectionPolicy], progress: Progress
) -> tuple[list[str], list[Trial]]:
    played = mentions_backtest.run(path, present, policies, source=asked.source, since=asked.since, progress=progress)
    refused = f", {played.refused} records could not be taken in" if played.refused else ""
    return [f"{played.mentions:,} mentions{refused}"], played.trials
