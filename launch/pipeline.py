"""Runs a chain of stages from several starts, and shows what each has come to.

    python -m launch.pipeline --config=configs/paper/table1.py --workdir=runs/table1 --plan
    python -m launch.pipeline --config=configs/demo_chain.py --workdir=runs/chain

The config is an experiment (it has `arms`) whose arms build on one another, most easily made with
configs/chains.py. It is printed as a plan, run as `launch.train` runs it, and shown as a table, a
row per start and held-out figure, a column per stage, which is written to pipeline.md too. The same
command goes on where it was stopped; --plan says where that is, and runs nothing.

A config file may have a `published()` beside its get_config(), {arm: {figure: value}} with the
names and units of evaluation.json: these numbers stand in brackets in the table.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from launch import program
from launch.run_flags import RunFlags
from rlp.run import config_files
from rlp.runtime import atomic_files, disk_errors, run_folder, run_reference
from rlp.runtime.display import printable
from rlp.runtime.errors import UserError

_RUN = RunFlags("folder of the chain, with a folder for each of its runs")
_PLAN = flags.DEFINE_bool("plan", False, "print the chain and where it stands, and run nothing")

PUBLISHED = "published"  # the function of a config file
Published = Mapping[str, Mapping[str, float]]


def main(_: Sequence[str]) -> None:
    """Prints the plan; without --plan, runs it and writes the table."""
    config, workdir = _RUN.config, Path(_RUN.workdir)
    if "arms" not in config:
        raise UserError("--config has no arms, so it is one run; launch.train runs it")
    published = read_published(_RUN.spec, list(config.arms))
    if _PLAN.value:
        print(plan(config, workdir))
        return
    with _RUN.joined():
        from rlp.runtime import hosts  # here: it brings jax, which a wrong flag should not wait for

        hosts.agree(lambda: print(plan(config, workdir), flush=True))
        summary = _RUN.train()
        if summary is not None:
            hosts.agree(lambda: _finish(config, workdir, summary, published))


def plan(config: ConfigDict, workdir: Path) -> str:
    """A line for every arm: what it starts from, what it trains on and how long, where it stands.

    Raises:
      UserError: as `rlp.run.experiment.arms_in_order` does.
    """
    from rlp.run import experiment

    rows: list[tuple[str, ...]] = [("run", "starts from", "objective", "for", "")]
    for name, arm in experiment.arms_in_order(config, workdir).items():
        start = _named(arm.init_from, workdir) or "nothing"
        cells = (name, start, arm.objective, _length(arm, workdir), _state(workdir / name))
        rows.append(tuple(map(printable, cells)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def read_published(spec: str, arms: Sequence[str]) -> Published:
    """What published() of the config file says of the arms; nothing if there is no such function.

    Raises:
      UserError: it speaks of something that is no arm.
    """
    file = spec.partition(":")[0]  # the numbers do not depend on the argument of get_config
    if not config_files.defines(file, PUBLISHED):
        return {}
    published = config_files.call(file, PUBLISHED)
    if odd := sorted(set(published) - set(arms)):
        raise UserError(
            f"{PUBLISHED} of {file} has {', '.join(odd)}, which is no arm; they are "
            f"{', '.join(arms)}"
        )
    return published


def _named(source: str, workdir: Path) -> str:
    """An arm by its name, not by its folder."""
    return source.removeprefix(f"{workdir}/")


def _length(arm: ConfigDict, workdir: Path) -> str:
    if arm.match:
        named = run_reference.usage(arm.match)
        return f"the {named.detail} of {_named(named.run, workdir)}"
    return f"{arm.steps} steps"


def _state(folder: Path) -> str:
    from rlp.training.checkpoint.folder import saved_steps

    if (folder / run_folder.EVALUATION).exists():
        return "finished"
    steps = saved_steps(folder / run_folder.CHECKPOINTS)
    return f"stands at step {steps[-1]}" if steps else "waits"


def _finish(
    config: ConfigDict, workdir: Path, summary: Mapping[str, Any], published: Published
) -> None:
    """Writes pipeline.md and prints it."""
    from rlp import report
    from rlp.run import experiment

    arms = experiment.arms_in_order(config, workdir)
    starts = {name: _named(arm.init_from, workdir) for name, arm in arms.items()}
    sources = {name: run_reference.checkpoint(start).run for name, start in starts.items()}
    inside = {name: source if source in arms else "" for name, source in sources.items()}
    figures = {name: summary[name] for name in summary["arms"]}
    table = report.chain_table(report.arm_stages(inside), figures, published)
    if published:
        table += "\n\nIn brackets: published numbers, of other data and another evaluation."
    path = workdir / run_folder.PIPELINE
    with disk_errors.writing(path):
        atomic_files.write_whole(path, table + "\n")
    print(f"\n{table}\n\ntable: {path}")


if __name__ == "__main__":
    program.run(main)
