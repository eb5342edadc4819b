"""The arms of the demo at full size: RLP ends above continued pretraining."""

import json
import subprocess
import sys

import pytest

from tests.support import environment
from tests.support.paths import ROOT

# Without the controls: the rewards of all objectives are tested in
# tests/rlp/answers/propositions_test.py and for single steps.
ARMS = ["base", "rlp", "cpt"]
CONFIG = f"""
from configs import demo_objectives

def get_config():
    config = demo_objectives.get_config()
    for name in set(config.arms) - {set(ARMS)}:
        del config.arms[name]
    return config
"""


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """The held-out metrics of each arm."""
    folder = tmp_path_factory.mktemp("order")
    (folder / "config.py").write_text(CONFIG)
    flags = [f"--config={folder / 'config.py'}", f"--workdir={folder / 'run'}"]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}  # most stages are shared
    subprocess.run(
        [sys.executable, "-m", "launch.train", *flags, "--config.seed=41"],
        cwd=ROOT,
        env=environment.of_a_user() | cache,
        check=True,
    )
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert sorted(summary["arms"]) == sorted(ARMS)
    return {arm: summary[arm] for arm in ARMS}


@pytest.mark.slow  # minutes of training
@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm != "rlp"])
def test_rlp_ends_above_continued_pretraining(arm, figures):
    rlp, other = figures["rlp"], figures[arm]
    assert rlp["think_loss"] < other["think_loss"]
    assert rlp["sampled_think_accuracy"] > other["sampled_think_accuracy"]
    assert rlp["greedy_think_accuracy"] > other["greedy_think_accuracy"]
