"""The documents say what the code does: generated parts are current, nothing public is undocumented, links lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("reference", ROOT / "tests" / "reference.py")
assert _spec is not None
assert _spec.loader is not None
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize(("name", "section"), list(reference.SECTIONS))
def test_generated_sections_are_current(name: str, section: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert reference.replaced(text, section, reference.SECTIONS[name, section]()) == text, "run `make docs`"


def test_every_setting_has_its_chinese_description_and_no_other() -> None:
    words = yaml.safe_load((ROOT / "docs" / "settings.zh.yaml").read_text(encoding="utf-8"))
    assert set(words) == {key for key, _, _ in reference.settings_rows()}


def test_every_command_says_what_it_does() -> None:
    for name, text in reference.commands():
        assert len(text) > 20, name


def test_every_table_view_and_column_is_described() -> None:
    text = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    assert not re.findall(r"^\| `\w+` \| .* \|  \|$", text, re.MULTILINE)
    assert not re.findall(r"^### \w+\n\n\n", text, re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: one.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: one.name)
def test_no_placeholders(document: Path) -> None:
    assert "@@" not in document.read_text(encoding="utf-8")
