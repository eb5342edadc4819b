"""The contents of a run folder or an experiment folder as Python objects for notebooks."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from ml_collections import ConfigDict

from rlp.metrics import catalogue, metrics_file
from rlp.report import (
    Group,
    Source,
    group_runs,
    load_folders,
    terminal_table,
    write_report_separately,
)
from rlp.report.columns import format_of, format_value, shown_columns, unit_of, value_in
from rlp.report.inline import Column, Inline, html_table, image, text_table
from rlp.runtime import run_folder
from rlp.runtime.config_json import load_run
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import read_object

SHOWN_STEPS = 5  # number of last steps in a table of metrics
SHOWN = (  # metrics in that table
    *("reward_mean", "information_gain", "accuracy", "closed_fraction", "thought_length"),
    *("thought_entropy", "grad_norm", "loss"),
)


class Metrics(Sequence[Mapping[str, float | None]]):
    """The metrics of every step of a run, as a sequence of dictionaries.

    Notebooks show plots and a table of the last steps. Indexing by a name returns the values of all
    steps, with None for steps that do not have the metric.

    Example::

        run.metrics[-1]["loss"]           # the last step
        run.metrics["loss"]               # all steps
        pandas.DataFrame(run.metrics)
    """

    def __init__(
        self, rows: Iterable[Mapping[str, float | None]], groups: Sequence[Group] = ()
    ) -> None:
        """Create the sequence.

        Args:
          rows: The metrics of each step, including "step".
          groups: The runs to plot.
        """
        self._rows, self._groups = list(rows), groups

    @overload
    def __getitem__(self, key: int) -> Mapping[str, float | None]: ...
    @overload
    def __getitem__(self, key: slice) -> "Metrics": ...
    @overload
    def __getitem__(self, key: str) -> list[float | None]: ...
    def __getitem__(self, key: int | slice | str) -> Any:
        if isinstance(key, slice):
            return Metrics(self._rows[key], self._groups)
        if isinstance(key, int):
            return self._rows[key]
        if not any(key in row for row in self._rows):
            raise KeyError(f"no step has the metric {key!r}; use one of {', '.join(self.names)}")
        return [row.get(key) for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def names(self) -> list[str]:
        """The names of all metrics that at least one step has."""
        return list(dict.fromkeys(name for row in self._rows for name in row))

    def __repr__(self) -> str:
        if not self._rows:
            return "no steps"
        return f"{text_table(self._columns())}\n{self._summary()}"

    def _repr_html_(self) -> str:
        if not self._rows:
            return "no steps"
        from rlp.report import plots  # imported lazily: matplotlib takes a second

        png = plots.overview_png(self._groups)
        shown = image(png, "plots of the metrics over the steps") if png else ""
        return html_table(self._columns(), self._summary()) + shown

    def _columns(self) -> list[Column]:
        metrics = filter(None, map(catalogue.find, SHOWN))
        shown = [metric for metric in metrics if any(metric.name in row for row in self._rows)]
        last = self._rows[-SHOWN_STEPS:]
        number = lambda value: "-" if value is None else f"{value:.4g}"
        return [Column("step", [f"{row['step']}" for row in last])] + [
            Column(m.name, [number(row.get(m.name)) for row in last], meaning=m.meaning)
            for m in shown
        ]

    def _summary(self) -> str:
        return f"last steps of {len(self)}; {len(self.names)} metrics in total"


class Evaluation(dict[str, Any]):
    """The content of evaluation.json: held-out metrics and training totals; shown as a table."""

    def __repr__(self) -> str:
        return text_table(self._columns())

    def _repr_html_(self) -> str:
        return html_table(self._columns())

    def _columns(self) -> list[Column]:
        known = [metric for metric in shown_columns([self]) if value_in(self, metric) is not None]
        units = [f" ({unit})" if (unit := unit_of(metric)) else "" for metric in known]
        names = [metric.heading + unit for metric, unit in zip(known, units, strict=True)]
        values = [format_value(value_in(self, m), format_of(m), plain=True) for m in known]
        return [Column("metric", names, text=True), Column("value", values)]


class _Folder:
    """The folder of a run or an experiment."""

    _kind: str

    def __init__(self, workdir: str | os.PathLike[str]) -> None:
        """Open a folder.

        Args:
          workdir: The folder.

        Raises:
          UserError: If the folder does not contain a run, or an experiment, respectively.
        """
        self.workdir = Path(workdir)
        _check_kind(self.workdir, self._kind)

    @property
    def thoughts(self) -> Inline:
        """The browser of thoughts along held-out documents, for notebooks."""
        from rlp.report import page

        sources = load_folders([self.workdir])
        text = f"thoughts of {self.workdir}: open {self.workdir / run_folder.REPORT} in a browser"
        return Inline(page.render(sources, group_runs(sources), only="thoughts"), text, height=560)

    def report(self) -> Inline:
        """Write report.html and plots/ to the folder.

        Returns:
          An object that notebooks show as the report page.

        Raises:
          UserError: If the report cannot be written.
        """
        out = self.workdir / run_folder.REPORT
        write_report_separately([self.workdir], out)
        return Inline(out.read_text(encoding="utf-8"), f"report: {out}", height=900)


class Run(_Folder):
    """A run, finished or not, as returned by `rlp.train`.

    Attributes:
      workdir: The run folder.

    Example::

        run = rlp.Run("runs/demo/rlp")
        run.evaluation["think_loss"], run.metrics[-1]["reward_mean"]
        model = run.model("best")
    """

    _kind = "run"

    @property
    def config(self) -> ConfigDict:
        """The resolved config."""
        return load_run(self.workdir / run_folder.CONFIG)

    @property
    def finished(self) -> bool:
        """Whether the run has finished and was evaluated."""
        return (self.workdir / run_folder.EVALUATION).exists()

    @property
    def metrics(self) -> Metrics:
        """The metrics of every step so far."""
        path = self.workdir / run_folder.METRICS
        lines = metrics_file.read(path) if path.exists() else iter(())
        return Metrics((line.row for line in lines if line.row is not None), self._groups)

    @property
    def evaluation(self) -> Evaluation:
        """Held-out metrics at the end of the run, and training totals.

        Raises:
          UserError: If the run has not finished.
        """
        if not self.finished:
            raise UserError(f"{self.workdir} has not finished; call train again to resume it")
        return Evaluation(read_object(self.workdir / run_folder.EVALUATION))

    @property
    def warnings(self) -> list[Mapping[str, Any]]:
        """The warnings that the run gave: "name", "step" and "message" of each."""
        return list(self._source.runs[0].warnings)

    def model(self, step: int | str = "") -> Any:
        """Load the trained model.

        Args:
          step: A step with a checkpoint, or "best"; "" for the last checkpoint.

        Returns:
          A `Model`.

        Raises:
          UserError: If there is no such checkpoint, or the model does not fit in memory.
        """
        from rlp.run.model import load

        return load(f"{self.workdir}@{step}" if step else self.workdir)

    def __repr__(self) -> str:
        if not self.finished:
            return f"{self.workdir}: stopped after {len(self.metrics)} steps"
        return f"{self.workdir}\n{terminal_table({self.workdir.name: self.evaluation})}"

    def _repr_html_(self) -> str:
        if not self.finished:
            return html_table([Column("run", [repr(self)], text=True)])
        return html_table(self.evaluation._columns(), str(self.workdir))

    @property
    def _source(self) -> Source:
        return load_folders([self.workdir])[0]

    @property
    def _groups(self) -> list[Group]:
        return group_runs([self._source])


class Experiment(_Folder):
    """An experiment, several runs ("arms") that build on one another, as returned by `rlp.train`.

    Attributes:
      workdir: The folder of the experiment.

    Example::

        experiment = rlp.Experiment("runs/demo")
        experiment["rlp"].metrics
    """

    _kind = "experiment"

    @property
    def arms(self) -> dict[str, Run]:
        """The runs that have started, by name; once all have finished, in the order they ran."""
        summary = self.workdir / run_folder.SUMMARY
        if summary.exists():
            names = read_object(summary)["arms"]
        else:
            names = list(load_run(self.workdir / run_folder.CONFIG).arms)
        started = [name for name in names if (self.workdir / name / run_folder.CONFIG).exists()]
        return {name: Run(self.workdir / name) for name in started}

    def __getitem__(self, name: str) -> Run:
        return self.arms[name]

    @property
    def evaluation(self) -> dict[str, Evaluation]:
        """The held-out metrics of every finished arm."""
        return {name: run.evaluation for name, run in self.arms.items() if run.finished}

    def __repr__(self) -> str:
        return f"{self.workdir}\n{terminal_table(self.evaluation)}"

    def _repr_html_(self) -> str:
        arms = self.evaluation
        metrics = shown_columns(arms.values())
        units = [f" ({unit})" if (unit := unit_of(metric)) else "" for metric in metrics]
        heads = [metric.heading + unit for metric, unit in zip(metrics, units, strict=True)]
        columns = [Column("metric", heads, text=True)]
        for name, arm in arms.items():
            values = [format_value(value_in(arm, m), format_of(m), plain=True) for m in metrics]
            columns.append(Column(name, values))
        return html_table(columns, str(self.workdir))


def _check_kind(workdir: Path, kind: str) -> None:
    """Check that a folder contains a run, or an experiment."""
    path = workdir / run_folder.CONFIG
    if not path.is_file():
        raise UserError(f"{workdir} is not the folder of {_an(kind)}: it has no {path.name}")
    actual = "experiment" if "arms" in load_run(path) else "run"
    if actual != kind:
        raise UserError(f"{workdir} contains {_an(actual)}; open it with rlp.{actual.capitalize()}")


def _an(kind: str) -> str:
    return f"an {kind}" if kind == "experiment" else f"a {kind}"
