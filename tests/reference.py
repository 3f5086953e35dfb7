"""The parts of the documents that are made from the code: settings, commands, metrics, topics, tables, scenarios.

``python tests/reference.py --write`` writes them between their marks; a test fails if they are not current.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_origin

import typer.main
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pipeline import metrics
from pipeline.cli import app
from pipeline.scenarios.story import Expected, load, names
from pipeline.settings import Settings
from pipeline.storage.embedded import EmbeddedEngine
from pipeline.storage.migrations import migrate

ROOT = Path(__file__).resolve().parent.parent


def settings_rows(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, default and description of every setting, in the order of the file."""
    for name, field in model.model_fields.items():
        inner = next((t for t in (field.annotation, *get_args(field.annotation)) if _is_model(t)), None)
        listed = get_origin(field.annotation) is tuple
        default = "" if field.default is PydanticUndefined or inner is not None else _shown(field.default)
        yield f"{prefix}{name}", default, field.description or ""
        if inner is not None:
            yield from settings_rows(inner, f"{prefix}{name}{'[]' if listed else ''}.")


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _shown(default: object) -> str:
    return "" if default in (None, "") else f"`{default}`"


def settings_table(language: str) -> str:
    """The configuration reference as a Markdown table."""
    words = yaml.safe_load((ROOT / "docs" / "settings.zh.yaml").read_text(encoding="utf-8"))
    head = {"en": ("key", "default", "meaning"), "zh": ("键", "默认值", "含义")}[language]
    rows = [f"| {' | '.join(head)} |", "|---|---|---|"]
    for key, default, description in settings_rows():
        rows.append(f"| `{key}` | {default} | {words[key] if language == 'zh' else description} |")
    return "\n".join(rows)


def commands() -> Iterator[tuple[str, str]]:
    """Every command and its first sentence."""
    group: Any = typer.main.get_command(app)
    for name, command in sorted(group.commands.items()):
        for inner, leaf in sorted(getattr(command, "commands", {"": command}).items()):
            yield f"{name} {inner}".strip(), (leaf.help or "").strip().splitlines()[0]


def commands_table() -> str:
    """All commands as a Markdown table."""
    return "\n".join(
        ["| command | what it does |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in commands())]
    )


def metrics_table() -> str:
    """All metrics as a Markdown table."""
    rows = ["| metric | type | meaning |", "|---|---|---|"]
    for family in metrics.REGISTRY.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append(f"| `{name}` | {family.type} | {family.documentation} |")
    return "\n".join(rows)


def topics_table() -> str:
    """All topics as a Markdown table."""
    topics = yaml.safe_load((resources.files("schemas") / "topics.yaml").read_text(encoding="utf-8"))
    rows = ["| topic | value | key | cleanup, retention | from → to |", "|---|---|---|---|---|"]
    for name, topic in topics.items():
        way = f"{', '.join(topic['producers'])} → {', '.join(topic['consumers'])}"
        rows.append(
            f"| `{name}` | `{topic['value']}` | {topic['key']} | {topic['cleanup']}, {topic['retention']} | {way} |"
        )
    return "\n".join(rows)


def tables_text() -> str:
    """Every table and view with its columns, as the database itself describes them."""
    with tempfile.TemporaryDirectory(prefix="radar-reference-") as folder:
        engine = EmbeddedEngine(Path(folder))
        try:
            migrate(engine)
            tables = _rows(
                engine, "SELECT name, comment, engine FROM system.tables WHERE database = currentDatabase() ORDER BY 1"
            )
            columns = _rows(
                engine,
                "SELECT table, name, type, comment FROM system.columns WHERE database = currentDatabase() ORDER BY table, position",
            )
        finally:
            engine.close()
    views = [table for table in tables if table["engine"] == "View"]
    parts = []
    for title, found in (("## Views", views), ("## Tables", [table for table in tables if table not in views])):
        parts.append(f"{title}\n")
        for table in found:
            parts.append(f"### {table['name']}\n\n{table['comment']}\n\n| column | type | meaning |\n|---|---|---|")
            parts += [
                f"| `{c['name']}` | {c['type']} | {c['comment']} |" for c in columns if c["table"] == table["name"]
            ]
            parts.append("")
    return "\n".join(parts)


def _rows(engine: EmbeddedEngine, query: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in engine.query(query).splitlines()]


_SCENARIOS = {
    "en": ("`--scenario`", "story", "days", "must come, and nothing else", "not reached yet"),
    "zh": ("`--scenario`", "故事", "天数", "应有的信号，此外都不应有", "尚未做到"),
}
_DAYS = {"en": ("days {}–{}", ", closed {}–{}"), "zh": ("第 {}–{} 天", "，第 {}–{} 天关闭")}


def scenarios_table(language: str) -> str:
    """All scenarios: their story, what must come of it, and what does not yet."""
    rows = [f"| {' | '.join(_SCENARIOS[language])} |", "|---|---|---|---|---|"]
    for scenario in map(load, names()):
        signals = "; ".join(_expected(one, language) for one in scenario.expected) or "–"
        short = scenario.shortfall
        known = " ".join(getattr(words, language) for words in (short.missing, short.extra) if words)
        story = f"**{getattr(scenario.title, language)}**: {getattr(scenario.story, language)}"
        rows.append(f"| `{scenario.name}` | {story} | {scenario.days} | {signals} | {known} |")
    return "\n".join(rows)


def _expected(one: Expected, language: str) -> str:
    """A signal that must come, in the words of its file."""
    parts = [one.kind, one.subject, one.lot, one.type, "" if one.verdict == "none" else f"→ {one.verdict}"]
    opened, closed = _DAYS[language]
    days = opened.format(*one.days) + (closed.format(*one.closed) if one.closed else "")
    return f"{' '.join(filter(None, parts))}{' historic' if one.historic else ''} ({days})"


SECTIONS: dict[tuple[str, str], Any] = {
    ("README.md", "settings"): lambda: settings_table("en"),
    ("README.zh.md", "settings"): lambda: settings_table("zh"),
    ("docs/reference.md", "commands"): commands_table,
    ("docs/reference.md", "metrics"): metrics_table,
    ("docs/reference.md", "topics"): topics_table,
    ("docs/tables.md", "tables"): tables_text,
    ("docs/scenarios.md", "scenarios"): lambda: scenarios_table("en"),
    ("docs/scenarios.zh.md", "scenarios"): lambda: scenarios_table("zh"),
}


def replaced(text: str, section: str, content: str) -> str:
    """The document with the section between its marks replaced."""
    begin, end = f"<!-- {section}: made by `make docs` -->", f"<!-- end of {section} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"the marks of {section} are missing")
    return f"{before}{begin}\n{content}\n{end}{after}"


def main(write: bool) -> int:
    """Write the sections, or say which are not current."""
    stale = 0
    for (name, section), content in SECTIONS.items():
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        current = replaced(text, section, content())
        if current != text:
            stale += 1
            if write:
                path.write_text(current, encoding="utf-8")
            print(f"{name}: {section} {'written' if write else 'is not current; run `make docs`'}")
    return 0 if write else stale


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv))
