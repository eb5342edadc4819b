"""Metrics and warnings that an objective defined outside this repository declares.

A run writes the declared metrics to its folder, because reports do not import user code.
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
    """Check the metrics and warnings that an objective declares.

    Args:
      metrics: The declared metrics.
      warnings: The declared rules, which may read these metrics and those of the catalogue.
      of: The field that declares them, for the message, such as "objective='mine:X'".

    Raises:
      UserError: If the name of a metric is empty, not printable, declared twice or already in the
        catalogue; if a metric is not measured at every step; or if a warning reads an unknown
        metric.
    """
    names = [metric.name for metric in metrics]
    for name in names:
        if not name.isprintable() or not name.strip() or name != name.strip():
            raise UserError(f"{of}: {name!r} is not a valid metric name; use letters and _")
        if catalogue.find(name) or name == "step" or name.startswith(HELD_OUT_PREFIX):
            raise UserError(f"{of}: the metric name {name!r} is reserved; choose another name")
        if names.count(name) > 1:
            raise UserError(f"{of}: the metric {name!r} is declared twice; declare it once")
    for metric in metrics:
        if metric.measured != "step":
            raise UserError(
                f"{of}: the metric {metric.name!r} has measured={metric.measured!r}, but an "
                "objective measures its metrics at every step; leave it out"
            )
    for rule in warnings:
        unknown = [key for key in rule.metrics if key not in names and not catalogue.find(key)]
        if unknown:
            raise UserError(
                f"{of}: the warning {rule.name!r} reads {', '.join(unknown)}, which no run "
                "measures; declare the metric, or use one from docs/metrics.md"
            )


def record(metrics: Sequence[Metric], workdir: Path) -> None:
    """Write the declared metrics to a run folder; without any, remove the file."""
    path = workdir / run_folder.DECLARED_METRICS
    if metrics:
        write_json(path, {"metrics": [dataclasses.asdict(metric) for metric in metrics]})
    else:
        path.unlink(missing_ok=True)


def read(workdir: Path) -> tuple[Metric, ...]:
    """Read the declared metrics from a run folder.

    Raises:
      UserError: If the file is damaged.
    """
    path = workdir / run_folder.DECLARED_METRICS
    if not path.exists():
        return ()
    records = read_object(path).get("metrics")
    if not isinstance(records, list) or not all(map(_is_metric, records)):
        raise UserError(f"{path} does not contain a list of metrics; the file is damaged")
    return tuple(Metric(**record) for record in records)


def _is_metric(record: object) -> bool:
    if not isinstance(record, dict) or set(record) != _FIELDS:
        return False
    texts = all(isinstance(record[name], str) for name in _FIELDS - {"lower_is_better", "shown"})
    flags = record["lower_is_better"] in (None, True, False) and isinstance(record["shown"], bool)
    return texts and flags and record["measured"] in catalogue.MEASURED
