"""Run an experiment: several runs ("arms") that build on one another, and a table of their results.

A config with `arms` is an experiment. An arm is the shared config updated with the fields of
`config.arms.<name>`. `init_from` and `match` may name another arm; arms run in dependency order,
each in its own folder, and finished arms are skipped.
"""

import dataclasses
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
from rlp.run import loop, memory_check, resume, training_suite
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
SUMMARY_KEYS = ("arms", "seed", "versions", "wall_s")  # keys of summary.json other than the arms


def run(
    config: ConfigDict,
    workdir: str | Path,
    *,
    allow_config_change: bool = False,
    report: bool = True,
    explicit: Collection[str] = (),
    on_step: loop.OnStep | None = None,
) -> dict[str, Any]:
    """Run all arms, write summary.json and the report, and print the table.

    Args:
      config: A config with `arms`.
      workdir: The folder of the experiment.
      allow_config_change: As in `loop.train`, for every arm.
      report: Write the report and print the table.
      explicit: As in `loop.train`, for every arm.
      on_step: As in `loop.train`, for every arm.

    Returns:
      The content of summary.json.

    Raises:
      UserError, Preempted: As in `loop.train`.
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
    """Train every arm, and return the results of `loop.train` in the order in which they ran."""
    resume.check_config(config, workdir, allow_config_change)
    pending: dict[str, ConfigDict] = {}
    templates: dict[str, str | None] = {}
    for name, arm in arms.items():
        checked = _check_arm(name, arm, workdir, explicit, pending, templates)
        pending[str(workdir / name)], templates[str(workdir / name)] = checked
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
        # After training, so that an arm that cannot start leaves no folder.
        hosts.agree(lambda: _begin(config, workdir))
    return results


def _begin(config: ConfigDict, workdir: Path) -> None:
    """Claim the folder for this experiment, and save its config there."""
    with disk_errors.writing(workdir, disk_errors.RESUME):
        ownership.claim(workdir, "experiment")
        save_config(config, workdir / run_folder.CONFIG)


def _summarise(
    config: ConfigDict, workdir: Path, results: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Write summary.json with the arms' results in the order in which they ran; return it."""
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
    """Write the report and print the table."""
    page = workdir / run_folder.REPORT
    write_report_separately([workdir], page)
    print(terminal_table(results))
    print(f"report: {page}")


def _arm_names(config: ConfigDict) -> list[str]:
    """Return the names of the arms, each of which is the name of a folder and a summary key."""
    names = list(config.arms) if isinstance(config.arms, ConfigDict) else []
    if not names:
        raise UserError("arms is empty; an experiment needs at least one arm: config.arms.<name>")
    for name in names:
        disk_errors.refuse_name("an arm", name)
        if name in (*SUMMARY_KEYS, *run_folder.WRITTEN["experiment"], run_folder.OWNER):
            raise UserError(f"the arm name {name!r} is reserved; choose another name")
    return names


def arms_in_order(config: ConfigDict, workdir: Path) -> dict[str, ConfigDict]:
    """Return the full config of every arm, in dependency order.

    Args:
      config: A config with `arms`.
      workdir: The folder of the experiment; references to an arm are replaced by its folder.

    Raises:
      UserError: As in `arm_config` and `arm_order`, or if the name of an arm is not valid.
    """
    arms = {name: arm_config(config, name, workdir) for name in _arm_names(config)}
    return {name: arms[name] for name in arm_order(arms, workdir)}


def _check_arm(
    name: str,
    arm: ConfigDict,
    workdir: Path,
    explicit: Collection[str],
    pending: Mapping[str, ConfigDict],
    templates: Mapping[str, str | None],
) -> tuple[ConfigDict, str | None]:
    """Check that an arm can be built, before any arm runs.

    Args:
      name: The name of the arm.
      arm: Its full config.
      workdir: The folder of the experiment.
      explicit: As in `loop.train`.
      pending: The configs of the arms that run before it, by their folders.
      templates: Their chat templates, likewise.

    Returns:
      The arm's config, with the architecture of the model that it is initialized from, and its chat
      template.

    Raises:
      UserError: If the arm cannot be built; names the arm.
    """
    folder = workdir / name
    try:
        matched = pending.get(starting.same_folder(run_reference.usage(arm.match).run, pending))
        if matched is not None and matched.steps == 0 and not matched.match:
            raise UserError.of("match", arm.match, ": that arm takes no steps; match another arm")
        hosts.agree(lambda: ownership.check(folder, "run"))
        adopted = starting.adopt(arm, folder, explicit, pending)
        files = resume.starting_files(adopted, folder, pending)
        run = memory_check.build(Config.of(adopted), files)
        template = _template(adopted, run.method.template, folder, pending, templates)
        run = dataclasses.replace(run, method=dataclasses.replace(run.method, template=template))
        training_suite.added(run, adopted, name, files)
    except UserError as error:
        raise error.within(f"arm {name}") from error
    return adopted, template


def _template(
    arm: ConfigDict,
    built: str | None,
    folder: Path,
    pending: Mapping[str, ConfigDict],
    templates: Mapping[str, str | None],
) -> str | None:
    """Return the chat template of an arm, which may be that of an arm that runs before it.

    Args:
      arm: Its config, as adopted.
      built: The template as it is while no arm has run.
      folder: Its folder.
      pending, templates: As in `_check_arm`.
    """
    source = starting.pending_source(arm.init_from, pending)
    if not source or arm.data.chat_template or (folder / run_folder.CONFIG).is_file():
        return built
    if arm.data.tokenizer != pending[source].data.tokenizer:
        return built
    # Without a template, the source leaves that of a tokenizer which the config names.
    return built if arm.data.tokenizer and templates[source] is None else templates[source]


def arm_config(config: ConfigDict, name: str, workdir: Path) -> ConfigDict:
    """Return the full config of an arm, with the names of other arms replaced by their folders.

    Raises:
      UserError: If the arm sets a field that does not exist, or a value of the wrong type.
    """
    shared = config.to_dict()
    arms = shared.pop("arms")
    arm = ConfigDict(shared)
    arm.lock()
    if "objective_options" in arm:
        arm.objective_options.unlock()  # the objective of the arm declares these fields
    try:
        arm.update(arms[name])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = str(error.args[0]).splitlines()[0]
        raise UserError(f"arms.{name} sets a field that a run does not have: {reason}") from error
    for field, split in run_reference.FIELDS.items():
        reference = split(arm[field])
        if reference.run in arms:
            arm[field] = reference.of(workdir / reference.run)
    return arm


def arm_order(arms: dict[str, ConfigDict], workdir: Path) -> list[str]:
    """Return the names of the arms in dependency order.

    Raises:
      UserError: If the dependencies are cyclic, or refer to neither an arm nor a folder.
    """
    folders = {str(workdir / name): name for name in arms}
    needs: dict[str, set[str]] = {}
    for name, arm in arms.items():
        start, run = arm.init_from, run_reference.checkpoint(arm.init_from).run
        is_arm = lambda source: bool(starting.same_folder(source, folders))
        # An existing path may be a GGUF file rather than a run.
        sources = [start if is_arm(start) or Path(start).exists() else run]
        if not Path(sources[0]).exists() and may_be_on_hub(start) and not is_arm(sources[0]):
            sources = []
        sources.append(run_reference.usage(arm.match).run)
        for source in filter(None, sources):
            if not is_arm(source) and not Path(source).exists():
                raise UserError(
                    f"arm {name} builds on {source}, which is neither a folder nor an arm; the "
                    f"arms are {', '.join(arms)}"
                )
        needs[name] = {
            folders[starting.same_folder(source, folders)] for source in sources if is_arm(source)
        }
    order: list[str] = []
    while len(order) < len(arms):
        ready = [name for name in arms if name not in order and needs[name] <= set(order)]
        if not ready:
            cycle = ", ".join(name for name in arms if name not in order)
            raise UserError(f"the arms {cycle} depend on one another; change init_from or match")
        order.append(ready[0])
    return order
