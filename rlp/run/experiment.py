"""An experiment: several runs ("arms") that build on one another, and a table at the end.

A config with `arms` is an experiment. An arm is the config itself with the fields of
`config.arms.<name>` put over it. `init_from` and `match` may name another arm; arms run in the
order that this needs, each in its own folder, and finished ones are not run again.
"""

import importlib.metadata
import platform
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs.default import Config
from rlp.interop import init_from as starting
from rlp.interop.huggingface import may_be_on_hub
from rlp.report import terminal_table, write_report_separately
from rlp.run import loop, memory_check, resume
from rlp.runtime import (
    consistency,
    disk_errors,
    hosts,
    lease,
    multihost,
    ownership,
    run_folder,
    run_reference,
)
from rlp.runtime.atomic_files import write_json
from rlp.runtime.config_json import fields, save_config
from rlp.runtime.errors import UserError

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
SUMMARY_KEYS = ("arms", "seed", "versions", "wall_s")  # besides the arms themselves


def run(
    config: ConfigDict,
    workdir: str | Path,
    *,
    allow_config_change: bool = False,
    report: bool = True,
    explicit: Collection[str] = (),
    on_step: loop.OnStep | None = None,
) -> dict[str, Any]:
    """Runs all arms, writes summary.json and the report, and prints the table.

    Args:
      config: with `arms`.
      workdir: folder of the experiment.
      allow_config_change, explicit, on_step: as in `loop.train`, for every arm.
      report: write the report and print the table.

    Returns:
      The content of summary.json.

    Raises:
      UserError, Preempted: as `loop.train` does.
    """
    workdir = Path(workdir)
    hosts.check_same({"--workdir": str(workdir)} | consistency.config_facts(dict(fields(config))))
    multihost.set_log_folder(workdir, lambda: ownership.claim(workdir, "experiment"))
    arms = arms_in_order(config, workdir)
    hosts.agree(lambda: ownership.check(workdir, "experiment"))
    with lease.held(workdir):
        results = _run(config, workdir, arms, allow_config_change, explicit, on_step)
        summary = hosts.agree(lambda: _summarise(config, workdir, results))
        if report:
            hosts.agree(lambda: _report(workdir, results))
        return summary


def _run(
    config: ConfigDict,
    workdir: Path,
    arms: Mapping[str, ConfigDict],
    allow_config_change: bool,
    explicit: Collection[str],
    on_step: loop.OnStep | None,
) -> dict[str, dict[str, Any]]:
    """What `loop.train` returns for every arm, in the order they ran."""
    resume.check_config(config, workdir, allow_config_change)
    pending: dict[str, ConfigDict] = {}
    for name, arm in arms.items():
        pending[str(workdir / name)] = _check_arm(name, arm, workdir, explicit, pending)
    results: dict[str, dict[str, Any]] = {}
    for name, arm in arms.items():
        results[name] = loop.train(
            arm,
            workdir / name,
            allow_config_change=allow_config_change,
            report=False,
            explicit=explicit,
            on_step=on_step,
        )
        # Not before: an arm that cannot start leaves no folder.
        hosts.agree(lambda: _begin(config, workdir))
    return results


def _begin(config: ConfigDict, workdir: Path) -> None:
    """Makes the folder that of this experiment."""
    with disk_errors.writing(workdir, disk_errors.RESUME):
        ownership.claim(workdir, "experiment")
        save_config(config, workdir / run_folder.CONFIG)


def _summarise(
    config: ConfigDict, workdir: Path, results: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Writes summary.json over the arms' results, in the order they ran; its content."""
    summary = results | {
        "arms": list(results),
        "seed": config.seed,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in LIBRARIES},
        "wall_s": sum(sum(result["wall_s"].values()) for result in results.values()),
    }
    with disk_errors.writing(workdir, disk_errors.RESUME):
        write_json(workdir / run_folder.SUMMARY, summary)
    return summary


def _report(workdir: Path, results: dict[str, dict[str, Any]]) -> None:
    """Writes the report and prints the table."""
    page = workdir / run_folder.REPORT
    write_report_separately([workdir], page)
    print(terminal_table(results))
    print(f"report: {page}")


def _arm_names(config: ConfigDict) -> list[str]:
    """Names of the arms, each of which becomes a folder and a key of summary.json."""
    names = list(config.arms) if isinstance(config.arms, ConfigDict) else []
    if not names:
        raise UserError("arms is empty; an experiment needs at least one: config.arms.<name>")
    for name in names:
        disk_errors.refuse_name("an arm", name)
        if name in (*SUMMARY_KEYS, *run_folder.WRITTEN["experiment"], run_folder.OWNER):
            raise UserError(f"an arm cannot be called {name!r}; take another name")
    return names


def arms_in_order(config: ConfigDict, workdir: Path) -> dict[str, ConfigDict]:
    """The whole config of every arm, each after those that it builds on.

    Args:
      config: with `arms`.
      workdir: folder of the experiment; what names an arm is turned into that arm's folder.

    Raises:
      UserError: as `arm_config` and `arm_order` do, and for arms that cannot be called so.
    """
    arms = {name: arm_config(config, name, workdir) for name in _arm_names(config)}
    return {name: arms[name] for name in arm_order(arms, workdir)}


def _check_arm(
    name: str,
    arm: ConfigDict,
    workdir: Path,
    explicit: Collection[str],
    pending: Mapping[str, ConfigDict],
) -> ConfigDict:
    """Refuses what an arm cannot be built from, before the arms in front of it have run.

    Returns the arm's config with the network that it will start from.
    """
    folder = workdir / name
    try:
        matched = pending.get(starting.same_folder(run_reference.usage(arm.match).run, pending))
        if matched is not None and matched.steps == 0 and not matched.match:
            raise UserError.of("match", arm.match, ": that arm takes no step and uses nothing")
        hosts.agree(lambda: ownership.check(folder, "run"))
        adopted = starting.adopt(arm, folder, explicit, pending)
        memory_check.build(Config.of(adopted), resume.starting_files(adopted, folder, pending))
    except UserError as error:
        raise error.within(f"arm {name}") from error
    return adopted


def arm_config(config: ConfigDict, name: str, workdir: Path) -> ConfigDict:
    """The whole config of an arm, with the names of other arms turned into their folders.

    Raises:
      UserError: the arm changes a field that does not exist, or to a value of another type.
    """
    shared = config.to_dict()
    arms = shared.pop("arms")
    arm = ConfigDict(shared)
    arm.lock()
    if "objective_options" in arm:
        arm.objective_options.unlock()  # its fields are declared by the objective of the arm
    try:
        arm.update(arms[name])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = str(error.args[0]).splitlines()[0]
        raise UserError(f"arms.{name} changes what a run does not have: {reason}") from error
    for field, split in run_reference.FIELDS.items():
        named = split(arm[field])
        if named.run in arms:
            arm[field] = named.of(workdir / named.run)
    return arm


def arm_order(arms: dict[str, ConfigDict], workdir: Path) -> list[str]:
    """Names of the arms so that each comes after those it builds on.

    Raises:
      UserError: on a circle, and on a run to build on that is neither an arm nor a folder.
    """
    folders = {str(workdir / name): name for name in arms}
    needs: dict[str, set[str]] = {}
    for name, arm in arms.items():
        start, run = arm.init_from, run_reference.checkpoint(arm.init_from).run
        is_arm = lambda source: bool(starting.same_folder(source, folders))
        # A file: a model in GGUF.
        sources = [start if is_arm(start) or Path(start).exists() else run]
        if not Path(sources[0]).exists() and may_be_on_hub(start) and not is_arm(sources[0]):
            sources = []
        sources.append(run_reference.usage(arm.match).run)
        for source in filter(None, sources):
            if not is_arm(source) and not Path(source).exists():
                raise UserError(
                    f"arm {name} builds on {source}, which is not an arm (they are "
                    f"{', '.join(arms)}) and not a folder"
                )
        needs[name] = {
            folders[starting.same_folder(source, folders)] for source in sources if is_arm(source)
        }
    order: list[str] = []
    while len(order) < len(arms):
        ready = [name for name in arms if name not in order and needs[name] <= set(order)]
        if not ready:
            left = ", ".join(name for name in arms if name not in order)
            raise UserError(f"the arms {left} wait for one another; change init_from or match")
        order.append(ready[0])
    return order
