"""The lexicons as data: what every entry must keep to."""

import pytest

from pipeline.errors import ConfigurationError
from pipeline.scoring.characters import columns
from pipeline.scoring.context import clause_numbers
from pipeline.scoring.lexicon import Lexicons, TermColumns, Terms, fold
from schemas.vocabulary import OBJECTION_TYPES


@pytest.fixture(scope="module")
def lexicons() -> Lexicons:
    return Lexicons()


def test_every_term_can_be_found(lexicons: Lexicons) -> None:
    assert [term for term in lexicons.terms.number if term != fold(term)] == []


def test_every_type_has_subtypes_and_words(lexicons: Lexicons) -> None:
    assert {one.type for one in lexicons.subtypes} == set(OBJECTION_TYPES)
    problems = [row["problem"] for row in lexicons.terms.rows if "problem" in row]
    assert set(problems) == set(range(len(lexicons.subtypes)))
    assert all(0 < one.severity <= 4 for one in lexicons.subtypes)


def test_a_term_has_one_meaning_of_a_kind() -> None:
    terms = Terms(())
    terms.add("慢", problem=1, role=1)
    terms.add("慢", problem=1, role=4)
    assert terms.rows == [{"problem": 1, "role": 5}]
    with pytest.raises(ConfigurationError, match="慢"):
        terms.add("慢", problem=2)


def test_longest_terms_win(lexicons: Lexicons) -> None:
    laid = columns(["好久不漏水"])
    hits = TermColumns(lexicons.terms).find(laid, laid.folded()).outermost()
    names = list(lexicons.terms.number)
    assert [names[term] for term in hits.term] == ["好久", "不", "漏水"]


def test_clauses() -> None:
    codes = columns(["甲，乙 丙iphone 13 v2.4。", "丁"]).codes
    numbers = clause_numbers(codes).tolist()
    assert numbers[:4] == [0, 0, 1, 1]
    assert len(set(numbers[4:19])) == 1
    # No text's first clause follows another text's last one.
    assert numbers[-2] - numbers[-3] > 1
