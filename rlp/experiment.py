"""An experiment: several runs ("arms") that build on one another, and a table at the end.

A config with `arms` is an experiment. An arm is the config itself with the fields of
`config.arms.<name>` put over it. `init_from` and `match` may name another arm; arms run in the
order that this needs, each in its own folder, and finished ones are not run again.
"""

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from rlp import build as building
from rlp import loop
from rlp.errors import UserError
from rlp.report import terminal_table, write_report
from rlp.run_config import save_config

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def run(
    config: ConfigDict, workdir: str | Path, *, allow_config_change: bool = False
) -> dict[str, Any]:
    """Runs all arms, writes summary.json and the report, and prints the table.

    Args:
      config: with `arms`.
      workdir: folder of the experiment.
      allow_config_change: as in `loop.train`, for every arm.

    Returns:
      The content of summary.json.

    Raises:
      UserError, Preempted: as `loop.train` does.
    """
    workdir = Path(workdir)
    arms = {name: arm_config(config, name, workdir) for name in config.arms}
    order = arm_order(arms, workdir)
    loop.check_workdir(config, workdir, allow_config_change)
    for name in order:
        building.check(arms[name])
    workdir.mkdir(parents=True, exist_ok=True)
    save_config(config, workdir / "config.json")
    results = {
        name: loop.train(
            arms[name], workdir / name, allow_config_change=allow_config_change, report=False
        )
        for name in order
    }
    summary = {name: results[name] for name in order} | {
        "arms": order,
        "seed": config.seed,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in LIBRARIES},
        "wall_s": sum(sum(result["wall_s"].values()) for result in results.values()),
    }
    unfinished = workdir / "summary.json.tmp"
    unfinished.write_text(json.dumps(summary, indent=1), encoding="utf-8")
    os.replace(unfinished, workdir / "summary.json")
    write_report([workdir], workdir / "report.html")
    print(terminal_table({name: results[name] for name in order}))
    print(f"report: {workdir / 'report.html'}")
    return summary


def arm_config(config: ConfigDict, name: str, workdir: Path) -> ConfigDict:
    """The whole config of an arm, with the names of other arms turned into their folders."""
    arm = ConfigDict(config.to_dict())
    changes = arm.arms[name].to_dict()
    names = set(config.arms)
    del arm.arms
    arm.lock()
    arm.update(changes)
    start, _, rest = arm.init_from.partition("@")
    if start in names:
        arm.init_from = str(workdir / start) + (f"@{rest}" if rest else "")
    other, _, what = arm.match.rpartition(":")
    if other in names:
        arm.match = f"{workdir / other}:{what}"
    return arm


def arm_order(arms: dict[str, ConfigDict], workdir: Path) -> list[str]:
    """Names of the arms, each after those it builds on. Raises UserError on a circle."""
    folders = {str(workdir / name): name for name in arms}
    needs = {
        name: {
            folders[path]
            for path in (arm.init_from.partition("@")[0], arm.match.rpartition(":")[0])
            if path in folders
        }
        for name, arm in arms.items()
    }
    order: list[str] = []
    while len(order) < len(arms):
        ready = [name for name in arms if name not in order and needs[name] <= set(order)]
        if not ready:
            left = ", ".join(name for name in arms if name not in order)
            raise UserError(f"the arms {left} wait for one another; change init_from or match")
        order.append(ready[0])
    return order
