"""Scenarios through the embedded runtime, in process: what was told."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.runtime.embedded import EmbeddedRuntime, open_engine
from pipeline.scenarios.story import POLICY, Scenario
from pipeline.scenarios.world import World
from pipeline.scoring.scorer import Scorer
from schemas.catalogue import CatalogueEntry
from schemas.signal import Signal

KEY = b"the same everywhere"


def catalogue_of(scenarios: Sequence[Scenario]) -> list[CatalogueEntry]:
    """All products of one brand."""
    return [entry for scenario in scenarios for entry in scenario.catalogue()]


def worlds_of(scenarios: Sequence[Scenario]) -> list[World]:
    """Each is a source of its own."""
    return [World(scenario, KEY) for scenario in scenarios]


def embedded(folder: Path, scenarios: Sequence[Scenario], block_size: int = 500) -> list[Signal]:
    """All revisions of all signals, of these scenarios as one stream; the database stays in the folder.

    Args:
        folder: for the database.
        scenarios: one or more.
        block_size: mentions a commit, at least; 1: a day, as the demo does.
    """
    told: list[Signal] = []
    catalogue = catalogue_of(scenarios)
    engine = open_engine(folder)
    try:
        runtime = EmbeddedRuntime(engine, worlds_of(scenarios), catalogue, POLICY, Scorer(catalogue), told.append)
        for _ in runtime.run_pass(block_size=block_size):
            pass
        runtime.close_history()
        runtime.close()
    finally:
        engine.close()
    return told
