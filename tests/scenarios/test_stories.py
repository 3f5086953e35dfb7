"""Every scenario alone, embedded: what must be told is told, and nothing else.

What detection does not reach yet stands in the file, under `shortfall`, and is expected to fail: once it is reached, the
entry has to go.
"""

from collections import Counter
from functools import cache

import pytest
from stories import embedded

from pipeline.scenarios.judge import Judgement, judge
from pipeline.scenarios.story import load, names

SCENARIOS = [load(name) for name in names()]


@pytest.fixture(scope="module")
def judgement_of(tmp_path_factory: pytest.TempPathFactory):
    """Replays a scenario once for all questions about it."""

    @cache
    def judged(name: str) -> Judgement:
        scenario = load(name)
        return judge(scenario, embedded(tmp_path_factory.mktemp(name), [scenario]))

    return judged


def each(facet: str) -> list[object]:
    """All scenarios; those that are known to fall short in this are expected to fail."""
    found = []
    for scenario in SCENARIOS:
        known = getattr(scenario.shortfall, facet)
        marks = [pytest.mark.xfail(strict=True, reason=known.en)] if known else []
        found.append(pytest.param(scenario.name, marks=marks))
    return found


@pytest.mark.parametrize("name", each("missing"))
def test_what_must_come_comes(judgement_of, name: str) -> None:
    assert not judgement_of(name).missing


@pytest.mark.parametrize("name", each("extra"))
def test_nothing_else_comes(judgement_of, name: str) -> None:
    assert not judgement_of(name).extra


def test_the_seven_incidents_and_the_quiet_ones_are_there() -> None:
    assert set("abcdefg") < set(names())
    quiet = {scenario.name for scenario in SCENARIOS if not scenario.expected}
    assert quiet >= {"promotion", "reposts", "filing", "handful", "launch", "holidays", "rewards"}


def test_no_product_is_in_two_of_them() -> None:
    """So that all of them can be one stream."""
    products = [product for scenario in SCENARIOS for product in scenario.products]
    counted = Counter(name for product in products for name in {product.id, product.name, *product.aliases})
    assert not [name for name, number in counted.items() if number > 1]
