"""The results of measurements on an accelerator: a JSON file and a Markdown table of it.

results.json holds `device`, from `device.describe`, and `measured`: for each name the `command`,
the `date` (UTC), and either the benchmark's JSON `line` and the `wall_s` that it took, or `failed`,
the reason. Both files are written anew after every measurement. Does not import jax.
"""

import datetime
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import runs
from benchmarks.accelerator.plan import HYBRID_STEP, Measurement
from benchmarks.attention import tables
from rlp.runtime.atomic_files import write_json, write_whole
from rlp.runtime.errors import UserError

# Seconds in a JSON line -> heading.
TIMES = {
    "step_s": "step s",
    "rollout_s": "rollout s",
    "score_s": "score s",
    "update_s": "update s",
}
# Stage, and its seconds in the lines of the recurrence and of the step.
RECURRENCE = (("rollout", "decode_s", "rollout_s"), ("update", "gradient_s", "update_s"))


class Results:
    """The results in a folder, in which an earlier call may have left some.

    Attributes:
      device: facts about the device.
      measured: name of a measurement -> its entry, as in results.json.
    """

    def __init__(self, folder: Path, device: dict[str, Any], plan: Sequence[Measurement]):
        """Read the results of earlier calls.

        Args:
          folder: exists.
          device: from `device.describe`.
          plan: all measurements, in the order of the table.

        Raises:
          UserError: If the folder has results of another device or version, or another
            results.json.
        """
        self.device = device
        self._folder, self._plan = folder, plan
        self._file = folder / "results.json"
        earlier, self.measured = self._read()
        for name, value in device.items():
            if (before := earlier.get(name, value)) != value:
                raise UserError(
                    f"--out={folder} has results with {name} {before!r}, here it is {value!r}; "
                    "name another folder"
                )

    def _read(self) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Return device and entries of the results.json of an earlier call; empty without one."""
        if not self._file.exists():
            return {}, {}
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            return dict(content["device"]), dict(content["measured"])
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"{self._file} was not written by this program; name another folder"
            ) from error

    def missing(self) -> list[Measurement]:
        """Return the measurements without a result, those that have failed before at the end.

        A result of other sizes than those of the plan is none.
        """
        missing = [one for one in self._plan if "line" not in self._entry(one)]
        return sorted(missing, key=lambda one: "failed" in self._entry(one))

    def add(self, one: Measurement, entry: dict[str, Any]) -> None:
        """Add what a measurement gave, `line` and `wall_s` or `failed`, and write both files."""
        date = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M}"
        self.measured[one.name] = {"command": self._command(one), "date": date, **entry}
        self.write()

    def write(self) -> None:
        """Write results.json and table.md."""
        content = {"device": self.device, "measured": self.measured}
        write_json(self._file, content)
        write_whole(self._folder / "table.md", self.table())

    def table(self) -> str:
        """Return everything as Markdown."""
        device = self.device
        facts = [f"{name} {device[name]}" for name in ("driver", "jax", "jaxlib") if device[name]]
        facts += [device["runtime"], f"{device['cpus']} CPUs"]
        parts = [f"# One of {device['devices']} × {device['device_kind']}\n\n{', '.join(facts)}"]
        parts += [self._attention(one) for one in self._with_line("benchmarks.attention")]
        if steps := self._with_line("benchmarks.step", "benchmarks.next_token"):
            parts.append(self._steps(steps))
        parts += [self._recurrence(one) for one in self._with_line("benchmarks.recurrence")]
        if missing := self.missing():
            lines = [
                f"- {one.name}: {self._entry(one).get('failed', 'not yet')}" for one in missing
            ]
            parts.append("## Not measured\n\n" + "\n".join(lines))
        commands = [
            f"    # {one.name}: {self._when(one)}\n    {self._command(one)}" for one in self._plan
        ]
        parts.append("## Commands\n\n" + "\n".join(commands))
        return "\n\n".join(parts) + "\n"

    def _attention(self, one: Measurement) -> str:
        line = self.measured[one.name]["line"]
        rates = (
            f"A large matmul reaches {line['matmul_tflop_per_s']:.4g} TFLOP/s and a large copy "
            f"{line['copy_gb_per_s']:.4g} GB/s."
        )
        title = one.name[0].upper() + one.name[1:]
        return f"## {title}\n\n{rates}\n\n{tables.table(line['rows'])}"

    def _steps(self, steps: Sequence[Measurement]) -> str:
        header = ["step", *TIMES.values(), "tokens/s", "model TFLOP/s", "MFU", "peak GiB"]
        rows = [[one.name, *_cells(self.measured[one.name]["line"])] for one in steps]
        explained = (
            "Medians over the timed steps. Tokens are those of thoughts, or of rows. Model FLOPs "
            "exclude recomputation; MFU is their share of the peak of the data sheet. The peak of "
            "the device's memory includes compilation."
        )
        return f"## Steps\n\n{explained}\n\n{runs.markdown(header, rows)}"

    def _recurrence(self, one: Measurement) -> str:
        line = self.measured[one.name]["line"]
        steps = {o.name: self.measured[o.name]["line"] for o in self._with_line("benchmarks.step")}
        step = steps.get(HYBRID_STEP)
        rows = [
            [what, f"{line[name]:.4g}", f"{line[name] / step[stage]:.1%}" if step else "unknown"]
            for what, name, stage in RECURRENCE
        ]
        explained = "Of all layers of Mamba-2 alone, with the sizes of the step of the hybrid."
        title = one.name[0].upper() + one.name[1:]
        header = ["stage", "s", "share of the stage"]
        return f"## {title}\n\n{explained}\n\n{runs.markdown(header, rows)}"

    def _with_line(self, *programs: str) -> list[Measurement]:
        return [o for o in self._plan if o.program in programs and "line" in self._entry(o)]

    def _entry(self, one: Measurement) -> dict[str, Any]:
        """Return the entry of a measurement; empty if there is none of this command."""
        entry = self.measured.get(one.name, {})
        return entry if entry.get("command") == self._command(one) else {}

    def _command(self, one: Measurement) -> str:
        return shlex.join(["python", "-m", *one.arguments(self.device["cpus"])])

    def _when(self, one: Measurement) -> str:
        entry = self._entry(one)
        if "line" not in entry:
            return "not measured"
        return f"{entry['date']} UTC, {entry['wall_s']:.0f} s with compilation"


def _cells(line: dict[str, Any]) -> list[str]:
    tokens = line.get("thought_tokens_per_s", line.get("tokens_per_s"))
    peak = line.get("device_peak_mib")
    return [
        *(f"{line[name]:.4g}" if name in line else "" for name in TIMES),
        f"{tokens:.4g}",
        f"{line['model_gflop_per_s'] / 1e3:.4g}",
        f"{line['mfu']:.1%}" if "mfu" in line else "unknown",
        "unknown" if peak is None else f"{peak / 1024:.2f}",
    ]
