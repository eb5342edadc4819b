"""The training loop: where config, data, checkpoints and metrics meet.

    build       what the run is made of, checked        rlp.run.assembly
    state       restored, or from another run, or fresh rlp.run.state
    steps       batch k -> trainer -> metrics; evaluation and checkpoints on the way
    end         held-out metrics, thoughts to look at   rlp.run.finish; then the report

A run that was stopped at any moment resumes with the same command and ends with the same bits: the
state after step k is a function of the config alone, and record k of the data is too.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ml_collections import ConfigDict

from configs.default import Config
from rlp.data.batch import HeldOut, Stream
from rlp.data.fingerprint import fingerprint
from rlp.data.rows import Rows
from rlp.engine.nonfinite import in_update
from rlp.engine.step import TrainState
from rlp.interop import init_from as starting
from rlp.metrics import catalogue, warning_rules
from rlp.metrics.metric import HELD_OUT_PREFIX
from rlp.metrics.watch import Watch
from rlp.metrics.writer import MetricsWriter, NoMetrics
from rlp.report import terminal_table, write_report_separately
from rlp.run import finish, memory_check, out_of_memory, resume
from rlp.run.assembly import Run, read_data, root_keys
from rlp.run.checks import profiled_steps
from rlp.run.model_files import small_files
from rlp.run.objective_options import with_options
from rlp.run.schedule import build_end, build_optimizer
from rlp.run.speed import Speed, brief
from rlp.run.state import Progress, StateMaker, arrays, save
from rlp.runtime import consistency, disk_errors, hosts, lease, multihost, ownership, run_folder
from rlp.runtime.config_json import fields
from rlp.runtime.errors import UserError
from rlp.runtime.fingerprints import Fingerprint, changes
from rlp.runtime.preemption import Preempted, Preemption
from rlp.runtime.progress import progress
from rlp.runtime.step_trace import StepTrace
from rlp.runtime.strict_json import finite
from rlp.training.budget import End
from rlp.training.checkpoint import Checkpoints, disk_space
from rlp.training.checkpoint.folder import saved_steps
from rlp.training.cost import Totals
from rlp.training.trainers import Trainer

LOGGER = logging.getLogger(__name__)
T = TypeVar("T")
OnStep = Callable[[Mapping[str, float]], object]  # of the metrics of a step, "step" among them


def train(
    config: ConfigDict,
    workdir: str | Path,
    *,
    allow_config_change: bool = False,
    report: bool = True,
    explicit: Collection[str] = (),
    on_step: OnStep | None = None,
) -> dict[str, Any]:
    """Runs a config in a folder, from where it stopped to its end.

    The folder then holds metrics.jsonl (a line a step), evaluation.json, thoughts.json, report.html
    and checkpoints.

    Args:
      config: fields as in `configs/default.py`.
      workdir: folder of the run; made if need be, resumed if it holds a run of the same config.
      allow_config_change: resume although the config differs from the saved one; a finished run
        goes on if it does, or if it has a `match`, whose budget may have grown.
      report: write report.html and plots at the end.
      explicit: dotted paths of fields that were set by hand, as `init_from.adopt` takes them.
      on_step: is called after every step with its metrics, on every process.

    Returns:
      The content of evaluation.json: held-out metrics, "step", what `Totals.metrics` counts,
      "wall_s" (seconds).

    Raises:
      UserError: for input that cannot be used; nothing is written then.
      Preempted: a signal asked the run to stop, and its state is saved.
    """
    workdir = Path(workdir)
    hosts.agree(lambda: ownership.check(workdir, "run"))
    with lease.held(workdir) as holding:
        config = with_options(starting.adopt(config, workdir, explicit))
        hosts.check_same(
            {"--workdir": str(workdir), "--allow_config_change": allow_config_change}
            | consistency.of_config(dict(fields(config)))
        )
        resume.check_config(config, workdir, allow_config_change)
        page = workdir / run_folder.REPORT
        result, reported = hosts.agree(lambda: (resume.finished(workdir), page.exists()))
        if allow_config_change and (config.match or resume.config_changes(config, workdir)):
            result = None
        if result is not None and (reported or not report):
            LOGGER.info("%s is finished; nothing to do", workdir)
            return result
        if result is None:
            with out_of_memory.named(Config.of(config)):
                run = _build(config, workdir)
                end = build_end(Config.of(config), run.method.model)
                loop = _Loop(config, workdir, run, end, holding, allow_config_change, on_step)
                result = loop.run()
        if report:
            hosts.agree(lambda: _report(workdir, page, result))
        return result


def _build(config: ConfigDict, workdir: Path) -> Run:
    """The run, before anything is written; whatever stands in its way is refused."""
    files = resume.starting_files(config, workdir)
    run = memory_check.build(Config.of(config), files)
    # Refuses a tokenizer that cannot be exported with what the config says of it.
    small_files(run.method, files, starting.same_tokenizer(config, files), config.data)
    return run


def _report(workdir: Path, page: Path, result: dict[str, Any]) -> None:
    write_report_separately([workdir], page)
    print(terminal_table({workdir.name: result}))
    print(f"report: {page}")


class _Loop:
    """One run in progress."""

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        made: Run,
        end: End,
        holding: lease.Lease | lease.NoLease,
        allow_data_change: bool = False,
        on_step: OnStep | None = None,
    ):
        self.config, self.workdir, self.made, self.end = config, workdir, made, end
        self.settings = settings = Config.of(config)
        self.holding, self.allow_data_change, self.on_step = holding, allow_data_change, on_step
        self.preemption = Preemption()
        self.label = f"{workdir.name} {settings.objective}"
        self.optimizer = build_optimizer(settings, end.last)
        self.states = StateMaker(settings, made, self.optimizer)
        self.init_key, self.key, self.evaluation_key = root_keys(settings.seed)
        self.progress = Progress(Totals(), {})
        self.faulty = False  # the last step had a value that was not finite
        self.speed = Speed([*made.mesh.devices.flat], settings.model.compute_dtype)

    def run(self) -> dict[str, Any]:
        """From the newest checkpoint to evaluation.json."""
        directory, made = self.workdir / run_folder.CHECKPOINTS, self.made
        train, held_out = read_data(self.settings, made)
        self.progress.data = fingerprint(train, held_out)
        hosts.check_same_data(self.progress.data)
        begun = hosts.agree(lambda: bool(saved_steps(directory)))
        begin = None if begun else self.states.given_params()
        files = starting.files_for(self.config, self.workdir)
        metric = made.task.best_metric
        self.holding.check()
        with Checkpoints(
            directory,
            keep=self.settings.checkpoint.keep,
            best_metric=metric,
            lower_is_better=catalogue.lower_is_better(metric),
            may_write=self.holding.check,
        ) as checkpoints:
            state = self._restored(checkpoints) or self.states.first(begin, self.init_key)
            del begin  # it would take as much memory as the parameters, to the end
            if hosts.is_first():
                most = memory_check.checkpoints(self.settings, self.end.last)
                disk_space.log_size(directory, arrays(state), most)
            # Only now: a state that does not fit the config leaves the folder as it was.
            begin_folder = lambda: resume.begin(self.config, made.method, files, self.workdir)
            hosts.agree(lambda: self._written(begin_folder))
            multihost.open_log(self.workdir)
            with self.preemption:
                state = self._steps(state, checkpoints, train, held_out)
                result = self._finish(state, checkpoints, held_out)
                self.preemption.check()  # before the next arm, or the report
                return result

    def _written(self, write: Callable[[], T]) -> T:
        """What `write` returns; where the disk fails, one line says so."""
        self.holding.check()
        with disk_errors.writing(self.workdir, disk_errors.RESUME):
            return write()

    def _restored(self, checkpoints: Checkpoints) -> TrainState | None:
        """The state of the newest whole checkpoint, or None."""
        found = self.states.restore(checkpoints, self.init_key)
        if found is None:
            return None
        state, saved = found
        hosts.agree(lambda: self._check_data(saved.data))
        self.progress.totals = saved.totals
        of = f" of {self.end.last}" if self.end.last else ""
        LOGGER.info("resuming %s at step %d%s", self.workdir, int(state.step), of)
        return state

    def _check_data(self, saved: dict[str, Fingerprint]) -> None:
        """Refuses to go on with other data than those of the checkpoint, unless that is allowed."""
        if not (changed := changes(saved, self.progress.data)):
            return
        told = "; ".join(changed)
        if not self.allow_data_change:
            raise UserError(
                f"{self.workdir} holds a run on other data ({told}); restore them, take another "
                "--workdir, or --allow_config_change to go on with the new data"
            )
        LOGGER.warning("going on with other data: %s", told)

    def _trainer(self, train: Stream) -> Trainer:
        return self.made.task.trainer(self.made, train, self.optimizer, self.states.shardings)

    def _steps(
        self, state: TrainState, checkpoints: Checkpoints, train: Stream, held_out: HeldOut
    ) -> TrainState:
        """All steps that are left, with the evaluations and checkpoints between them."""
        settings, step, totals = self.settings, int(state.step), self.progress.totals
        trainer, over = self._trainer(train), self.end.reached(step, totals)
        size = {"model.vocab_size": self.made.method.model.vocab_size}
        task = self.made.task
        rules = (*warning_rules.RULES, *task.warnings)
        watch = Watch(dict(fields(self.config)) | size, rules)
        writing = lambda: MetricsWriter(self.workdir, step, watch, task.metrics)
        with (
            writing() if hosts.is_first() else NoMetrics() as writer,
            progress(self.end.last, step, self.label) as bar,
            StepTrace(profiled_steps(settings), self.workdir / run_folder.PROFILE) as trace,
        ):
            while not over:
                self._stop_if_asked(state, checkpoints)
                with trace.step(step + 1):
                    state, metrics = self._one_step(trainer, state, train)
                self.preemption.wait()  # from now on there is something to save
                step += 1
                over = self.end.reached(step, totals)
                figures = None
                every = settings.evaluation.every
                if every and step % every == 0 and not over:
                    figures = self._evaluate(state, held_out)
                    metrics |= {HELD_OUT_PREFIX + name: value for name, value in figures.items()}
                self.holding.check()
                writer.write(step, metrics)
                bar.set_postfix_str(brief(metrics), refresh=False)
                bar.total = self.end.expected(step, totals)
                bar.update(1)
                self._check_health(state, checkpoints, trainer.fault)
                if figures or (step % settings.checkpoint.every == 0 and not over):
                    self._save(state, checkpoints, figures)
                if self.on_step:
                    self.on_step({"step": step, **metrics})
        return state

    def _stop_if_asked(self, state: TrainState, checkpoints: Checkpoints) -> None:
        """Saves the state and raises Preempted where a signal has asked the run to stop."""
        try:
            self.preemption.check()
        except Preempted:
            self._save(state, checkpoints)
            checkpoints.wait()
            raise

    def _one_step(
        self, trainer: Trainer, state: TrainState, train: Stream
    ) -> tuple[TrainState, dict[str, float]]:
        totals, size = self.progress.totals, self.settings.batch_size
        start, first = time.perf_counter(), totals.position
        rows = Rows(size, lambda row, count: train.batch(first + row, count))
        updates = int(state.step) * self.made.task.updates_per_step - int(state.skipped)
        state, metrics, cost = trainer.step(state, rows, self.key)
        elapsed = time.perf_counter() - start
        totals.add(cost, elapsed, self.made.mesh.size)
        totals.position += size
        seconds = {f"seconds_{stage}": value for stage, value in cost.seconds.items()}
        return state, metrics | totals.metrics() | seconds | self.speed.metrics(cost, elapsed) | {
            "learning_rate": float(self.optimizer.learning_rate(updates)),
            "skipped_updates": int(state.skipped),
        }

    def _check_health(self, state: TrainState, checkpoints: Checkpoints, fault: str) -> None:
        """Stops a run that only produces numbers that are not finite; names the first of them."""
        bad, step = int(state.skipped_in_row), int(state.step)
        if fault and not self.faulty:
            LOGGER.warning("step %d: %s", step, fault)
        self.faulty = bool(fault)
        if bad >= self.settings.max_bad_steps:
            checkpoints.wait()
            saved = ", ".join(map(str, checkpoints.steps))
            raise UserError(
                f"{bad} updates in a row had a loss or gradient that is not finite, the last at "
                f"step {step}; {fault or in_update({})}"
                + (f" (there are checkpoints of steps {saved})" if saved else "")
            )

    def _evaluate(
        self, state: TrainState, held_out: HeldOut, watch: finish.Watch = iter
    ) -> dict[str, float]:
        start = time.perf_counter()
        figures = self.made.evaluator.evaluate(state.params, held_out, self.evaluation_key, watch)
        self.progress.totals.seconds_evaluate += time.perf_counter() - start
        return figures

    def _watched(self, parts: list) -> Iterator:
        """The parts of the final evaluation, under a progress bar; a signal ends them."""
        label = f"{self.workdir.name} evaluation"
        with progress(len(parts), 0, label, "batch") as bar:
            for part in self.preemption.watch(parts):
                yield part
                bar.update(1)

    def _save(
        self, state: TrainState, checkpoints: Checkpoints, figures: dict[str, float] | None = None
    ) -> None:
        self.holding.check()
        save(checkpoints, state, self.progress, figures)

    def _finish(
        self, state: TrainState, checkpoints: Checkpoints, held_out: HeldOut
    ) -> dict[str, Any]:
        """Held-out metrics and thoughts of the last step, and its checkpoint."""
        try:
            figures = self._evaluate(state, held_out, self._watched)
        except Preempted:
            self._save(state, checkpoints)
            checkpoints.wait()
            raise
        self._save(state, checkpoints, figures)
        browsed = (self.settings, self.made, state.params, held_out, self.evaluation_key)
        documents, responses = finish.browse_thoughts(*browsed), finish.browse_responses(*browsed)
        checkpoints.wait()
        result = finite(finish.result_of(state, self.end.last, figures, self.progress.totals))
        write = lambda: finish.write(self.workdir, documents, responses, result)
        return hosts.agree(lambda: self._written(write))
