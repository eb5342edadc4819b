"""Run a chain of stages from several starts, and print a table of the results.

    python -m launch.pipeline --config=configs/paper/table1.py --workdir=runs/table1 --plan
    python -m launch.pipeline --config=configs/demo_chain.py --workdir=runs/chain

The config is an experiment (a config with `arms`) whose arms start from each other;
configs/chains.py helps to write one. The program prints the plan, runs it like `launch.train`,
prints a table with a row per start and held-out metric and a column per stage, and writes it to
pipeline.md. The same command resumes the chain; --plan prints the state of each run, and runs
nothing.

A config file can define `published()` besides get_config(). It returns {arm: {metric: value}} with
the names and units of evaluation.json; the table shows these numbers in brackets.
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
_PLAN = flags.DEFINE_bool(
    "plan", False, "print the runs of the chain and their states, and run nothing"
)

PUBLISHED = "published"  # name of the function in a config file
Published = Mapping[str, Mapping[str, float]]


def main(_: Sequence[str]) -> None:
    """Print the plan; without --plan, also run it and write the table."""
    config, workdir = _RUN.config, Path(_RUN.workdir)
    if "arms" not in config:
        raise UserError("--config has no arms, so it is a single run; use launch.train")
    published = read_published(_RUN.spec, list(config.arms))
    if _PLAN.value:
        print(plan(config, workdir))
        return
    with _RUN.joined():
        from rlp.runtime import hosts  # imports jax, so only after the flags were checked

        hosts.agree(lambda: print(plan(config, workdir), flush=True))
        summary = _RUN.train()
        if summary is not None:
            hosts.agree(lambda: _finish(config, workdir, summary, published))


def plan(config: ConfigDict, workdir: Path) -> str:
    """Return a table of the arms: start, objective, length and state.

    Raises:
      UserError: See `rlp.run.experiment.arms_in_order`.
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
    """Return published() of the config file; {} if the file does not define it.

    Raises:
      UserError: It has a name that is not an arm.
    """
    file = spec.partition(":")[0]  # the numbers do not depend on the argument of get_config
    if not config_files.defines(file, PUBLISHED):
        return {}
    published = config_files.call(file, PUBLISHED)
    if unknown := sorted(set(published) - set(arms)):
        raise UserError(
            f"{PUBLISHED} of {file} has {', '.join(unknown)}, which is not an arm; the arms are "
            f"{', '.join(arms)}"
        )
    return published


def _named(source: str, workdir: Path) -> str:
    """Return the name of an arm that is given by its folder."""
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
    return f"at step {steps[-1]}" if steps else "pending"


def _finish(
    config: ConfigDict, workdir: Path, summary: Mapping[str, Any], published: Published
) -> None:
    """Write pipeline.md and print it."""
    from rlp import report
    from rlp.run import experiment

    arms = experiment.arms_in_order(config, workdir)
    starts = {name: _named(arm.init_from, workdir) for name, arm in arms.items()}
    sources = {name: run_reference.checkpoint(start).run for name, start in starts.items()}
    inside = {name: source if source in arms else "" for name, source in sources.items()}
    figures = {name: summary[name] for name in summary["arms"]}
    table = report.chain_table(report.arm_stages(inside), figures, published)
    if published:
        table += (
            "\n\nIn parentheses: published numbers, measured on other data with another evaluation."
        )
    path = workdir / run_folder.PIPELINE
    with disk_errors.writing(path):
        atomic_files.write_whole(path, table + "\n")
    print(f"\n{table}\n\ntable: {path}")


if __name__ == "__main__":
    program.run(main)
