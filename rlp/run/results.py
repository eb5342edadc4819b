"""What lies in the folder of a run or an experiment, as Python objects that show themselves."""

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

SHOWN_STEPS = 5  # of the last ones, in a table of metrics
SHOWN = (  # metrics in that table
    *("reward_mean", "information_gain", "accuracy", "closed_fraction", "thought_length"),
    *("thought_entropy", "grad_norm", "loss"),
)


class Metrics(Sequence[Mapping[str, float | None]]):
    """The metrics of every step of a run; shows as a table of the last ones, with plots.

    run.metrics[-1]["loss"]           of the last step
    run.metrics["loss"]               of all steps, None where a step does not have it
    pandas.DataFrame(run.metrics)
    """

    def __init__(
        self, rows: Iterable[Mapping[str, float | None]], groups: Sequence[Group] = ()
    ) -> None:
        """Args: rows: of the steps, each with "step"; groups: the runs that plots are made of."""
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
            raise KeyError(f"no step has a metric {key!r}; there are {', '.join(self.names)}")
        return [row.get(key) for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def names(self) -> list[str]:
        """The names of all metrics that some step has."""
        return list(dict.fromkeys(name for row in self._rows for name in row))

    def __repr__(self) -> str:
        if not self._rows:
            return "no steps"
        return f"{text_table(self._columns())}\n{self._summary()}"

    def _repr_html_(self) -> str:
        if not self._rows:
            return "no steps"
        from rlp.report import plots  # here: matplotlib takes a second

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
        return f"the last of {len(self)} steps, {len(self.names)} metrics each"


class Evaluation(dict[str, Any]):
    """Held-out metrics, and what training used, as evaluation.json has them; shows as a table."""

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
        """What a folder holds.

        Raises:
          UserError: it is not the folder of a run, or of an experiment, whichever is asked for.
        """
        self.workdir = Path(workdir)
        _check_kind(self.workdir, self._kind)

    @property
    def thoughts(self) -> Inline:
        """The browser of thoughts along held-out documents, for a notebook."""
        from rlp.report import page

        sources = load_folders([self.workdir])
        text = f"thoughts of {self.workdir}: open {self.workdir / run_folder.REPORT} in a browser"
        return Inline(page.render(sources, group_runs(sources), only="thoughts"), text, height=560)

    def report(self) -> Inline:
        """Writes report.html and plots/ into the folder; what it returns shows the page."""
        out = self.workdir / run_folder.REPORT
        write_report_separately([self.workdir], out)
        return Inline(out.read_text(encoding="utf-8"), f"report: {out}", height=900)


class Run(_Folder):
    """A run in its folder, finished or not.

    Attributes:
      workdir: its folder.
    """

    _kind = "run"

    @property
    def config(self) -> ConfigDict:
        """The resolved config."""
        return load_run(self.workdir / run_folder.CONFIG)

    @property
    def finished(self) -> bool:
        """Whether it has come to its end."""
        return (self.workdir / run_folder.EVALUATION).exists()

    @property
    def metrics(self) -> Metrics:
        """The metrics of every step so far."""
        path = self.workdir / run_folder.METRICS
        lines = metrics_file.read(path) if path.exists() else iter(())
        return Metrics((line.row for line in lines if line.row is not None), self._groups)

    @property
    def evaluation(self) -> Evaluation:
        """Held-out metrics at the end, and what training used.

        Raises:
          UserError: the run has not finished.
        """
        if not self.finished:
            raise UserError(f"{self.workdir} has not finished; train it again to resume it")
        return Evaluation(read_object(self.workdir / run_folder.EVALUATION))

    @property
    def warnings(self) -> list[Mapping[str, Any]]:
        """What it found amiss in its own metrics: "name", "step" and "message" of each."""
        return list(self._source.runs[0].warnings)

    def model(self, step: int | str = "") -> Any:
        """Its network, a `Model`: of the last step, of a step that was kept, or of the "best"."""
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
    """An experiment in its folder: several runs, "arms", that build on one another.

    Attributes:
      workdir: its folder.
    """

    _kind = "experiment"

    @property
    def arms(self) -> dict[str, Run]:
        """The runs that have begun, by name; of a finished experiment in the order they ran."""
        summary = self.workdir / run_folder.SUMMARY
        if summary.exists():
            names = read_object(summary)["arms"]
        else:
            names = list(load_run(self.workdir / run_folder.CONFIG).arms)
        begun = [name for name in names if (self.workdir / name / run_folder.CONFIG).exists()]
        return {name: Run(self.workdir / name) for name in begun}

    def __getitem__(self, name: str) -> Run:
        return self.arms[name]

    @property
    def evaluation(self) -> dict[str, Evaluation]:
        """Held-out metrics of every arm that has finished."""
        return {name: run.evaluation for name, run in self.arms.items() if run.finished}

    def __repr__(self) -> str:
        return f"{self.workdir}\n{terminal_table(self.evaluation)}"

    def _repr_html_(self) -> str:
        arms = self.evaluation
        metrics = shown_columns(arms.values())
        units = [f" ({unit})" if (unit := unit_of(metric)) else "" for metric in metrics]
        heads = [metric.heading + unit for metric, unit in zip(metrics, units, strict=True)]
        columns = [Column("metric", heads, text=True)]
        for name, figures in arms.items():
            values = [format_value(value_in(figures, m), format_of(m), plain=True) for m in metrics]
            columns.append(Column(name, values))
        return html_table(columns, str(self.workdir))


def _check_kind(workdir: Path, kind: str) -> None:
    """Refuses a folder that does not hold a run, or an experiment."""
    path = workdir / run_folder.CONFIG
    if not path.is_file():
        raise UserError(f"{workdir} is not the folder of {_an(kind)}: it has no {path.name}")
    found = "experiment" if "arms" in load_run(path) else "run"
    if found != kind:
        raise UserError(f"{workdir} holds {_an(found)}; open it with rlp.{found.capitalize()}")


def _an(kind: str) -> str:
    return f"an {kind}" if kind == "experiment" else f"a {kind}"
