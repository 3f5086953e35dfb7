"""The demo's data folder, made once for all that ask it."""

from pathlib import Path

import pytest

from pipeline.runtime.demo import demo


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("demo")
    assert demo("demo", made) == 0
    return made
