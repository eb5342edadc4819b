"""An experiment to report on."""

from pathlib import Path

import pytest

from tests.support.reports import make_experiment


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """An experiment with three arms."""
    return make_experiment(tmp_path / "demo")
