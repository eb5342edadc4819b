"""Metrics and warnings that an objective from outside of this repository declares.

A run records the metrics in its folder, so that reports, which import nothing of the user's, know
them.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rlp.metrics import catalogue
from rlp.metrics.metric import HELD_OUT_PREFIX, Metric
from rlp.metrics.watch import Rule
from rlp.runtime import run_folder
from rlp.runtime.atomic_files import write_json
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import read_object

_FIELDS = {field.name for field in dataclasses.fields(Metric)}


def check(metrics: Sequence[Metric], warnings: Sequence[Rule], of: str) -> None:
    """Refuses names that cannot be used.

    Args:
      metrics: that are declared.
      warnings: that may read these metrics.
      of: what declares them, for the message.

    Raises:
      UserError: the name of a metric is empty, is not printable, is declared twice, or is one of
        the catalogue; it is not measured in steps; a warning reads a metric that no run has.
    """
    names = [metric.name for metric in metrics]
    for name in names:
        if not name.isprintable() or not name.strip() or name != name.strip():
            raise UserError(f"{of}: a metric cannot be called {name!r}; use letters and _")
        if catalogue.find(name) or name == "step" or name.startswith(HELD_OUT_PREFIX):
            raise UserError(f"{of}: every run has a metric {name!r}; take another name")
        if names.count(name) > 1:
            raise UserError(f"{of}: the metric {name!r} is declared twice; declare it once")
    for metric in metrics:
        if metric.measured != "step":
            raise UserError(
                f"{of}: the metric {metric.name!r} has measured={metric.measured!r}, and an "
                "objective's are measured in every step; leave it out"
            )
    for rule in warnings:
        if odd := [key for key in rule.metrics if key not in names and not catalogue.find(key)]:
            raise UserError(
                f"{of}: the warning {rule.name!r} reads {', '.join(odd)}, which no run measures; "
                "declare the metric, or take one of docs/metrics.md"
            )


def record(metrics: Sequence[Metric], workdir: Path) -> None:
    """Writes the metrics that a run declares into its folder; no file where it declares none."""
    path = workdir / run_folder.DECLARED_METRICS
    if metrics:
        write_json(path, {"metrics": [dataclasses.asdict(metric) for metric in metrics]})
    else:
        path.unlink(missing_ok=True)


def read(workdir: Path) -> tuple[Metric, ...]:
    """The metrics that a run declares.

    Raises:
      UserError: the file is damaged.
    """
    path = workdir / run_folder.DECLARED_METRICS
    if not path.exists():
        return ()
    records = read_object(path).get("metrics")
    if not isinstance(records, list) or not all(map(_is_metric, records)):
        raise UserError(f"{path}: not a list of metrics; the file is damaged")
    return tuple(Metric(**record) for record in records)


def _is_metric(record: object) -> bool:
    if not isinstance(record, dict) or set(record) != _FIELDS:
        return False
    texts = all(isinstance(record[name], str) for name in _FIELDS - {"lower_is_better", "shown"})
    flags = record["lower_is_better"] in (None, True, False) and isinstance(record["shown"], bool)
    return texts and flags and record["measured"] in catalogue.MEASURED
