"""The training loop: from a config and a folder to a finished run.

    claim   take the folder, compare configs, return if the run is finished     rlp.run.resume
    build   build and check all parts of the run                                rlp.run.assembly
    state   restore a checkpoint, load `init_from`, or initialize parameters    rlp.run.state
    steps   batch k -> trainer -> metrics; evaluate and save in between
    end     compute held-out metrics, write thoughts and the report             rlp.run.finish

A run that is interrupted at any moment resumes with the same command, and its result is bitwise
identical to that of an uninterrupted run: the state after step k and record k of the data depend
only on the config.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
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
from rlp.run import arithmetic, finish, memory_check, out_of_memory, resume, training_suite
from rlp.run.assembly import RunParts, read_data, root_keys
from rlp.run.checks import profiled_steps
from rlp.run.evaluations import Evaluations
from rlp.run.model_files import small_files
from rlp.run.objective_options import with_options
from rlp.run.schedule import build_end, build_optimizer
from rlp.run.speed import Speed, brief
from rlp.run.state import Progress, StateMaker, arrays, save
from rlp.runtime import consistency, disk_errors, hosts, lease, multihost, ownership, run_folder
from rlp.runtime.config_json import fields
from rlp.runtime.errors import UserError
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
OnStep = Callable[[Mapping[str, float]], object]  # receives the metrics of a step and "step"


def train(
    config: ConfigDict,
    workdir: str | Path,
    *,
    allow_config_change: bool = False,
    report: bool = True,
    explicit: Collection[str] = (),
    on_step: OnStep | None = None,
) -> dict[str, Any]:
    """Train a run in a folder until its end, resuming it if it was interrupted.

    Afterwards the folder contains metrics.jsonl (one line per step), evaluation.json,
    thoughts.json, report.html and checkpoints.

    Args:
      config: A config with the fields of `configs/default.py`.
      workdir: The run folder; created if it does not exist, resumed if its config is the same.
      allow_config_change: Resume even if the config differs from the saved one. A finished run
        continues if the config differs, or if it has `match`, whose budget may have grown.
      report: Write report.html and plots at the end.
      explicit: Dotted paths of fields that the user set explicitly; see `init_from.adopt`.
      on_step: Called after every step with its metrics, in every process.

    Returns:
      The content of evaluation.json: held-out metrics, "step", the metrics of `Totals.metrics`, and
      "wall_s" (seconds).

    Raises:
      UserError: If the config, data or folder cannot be used; nothing has been written then.
      Preempted: If a signal stopped the run; its state is saved.
    """
    workdir = Path(workdir)
    hosts.agree(lambda: ownership.check(workdir, "run"))
    with lease.held(workdir) as folder_lease:
        config = with_options(starting.adopt(config, workdir, explicit))
        hosts.check_same(
            {"--workdir": str(workdir), "--allow_config_change": allow_config_change}
            | consistency.config_facts(dict(fields(config)))
            | arithmetic.facts(config.model.compute_dtype)
        )
        resume.check_config(config, workdir, allow_config_change)
        page = workdir / run_folder.REPORT
        result, reported = hosts.agree(lambda: (resume.finished(workdir), page.exists()))
        if allow_config_change and (config.match or resume.config_changes(config, workdir)):
            result = None
        if result is not None and (reported or not report):
            LOGGER.info("%s is already finished; nothing to do", workdir)
            return result
        if result is None:
            with out_of_memory.as_user_error(Config.of(config)):
                run = _build(config, workdir)
                end = build_end(Config.of(config), run.method.model)
                loop = _Loop(config, workdir, run, end, folder_lease, allow_config_change, on_step)
                result = loop.run()
        if report:
            hosts.agree(lambda: _report(workdir, page, result))
        return result


def _build(config: ConfigDict, workdir: Path) -> RunParts:
    """Build the run and check everything that can be checked before anything is written."""
    files = resume.starting_files(config, workdir)
    run = memory_check.build(Config.of(config), files)
    # Raises if the tokenizer could not be exported with the config's special tokens.
    small_files(run.method, files, starting.same_tokenizer(config, files), config.data)
    return training_suite.added(run, config, workdir.name, files)


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
        parts: RunParts,  # task, model, evaluator, mesh
        end: End,
        folder_lease: lease.Lease | lease.NoLease,  # checked before every write
        allow_data_change: bool = False,
        on_step: OnStep | None = None,
    ):
        self.config, self.workdir, self.parts, self.end = config, workdir, parts, end
        self.folder_lease, self.settings = folder_lease, Config.of(config)
        self.allow_data_change, self.on_step = allow_data_change, on_step
        self.preemption = Preemption()
        self.label = f"{workdir.name} {self.settings.objective}"
        self.optimizer = build_optimizer(self.settings, end.last)
        self.states = StateMaker(self.settings, parts, self.optimizer)
        self.init_key, self.key, self.evaluation_key = root_keys(self.settings.seed)
        evaluation = (self.settings.evaluation, self.evaluation_key, workdir.name)
        self.evaluations = Evaluations(parts, self.preemption, *evaluation)
        self.progress = Progress(Totals(), {})
        self.faulty = False  # whether the last step had a non-finite value
        self.speed = Speed([*parts.mesh.devices.flat], self.settings.model.compute_dtype)

    def run(self) -> dict[str, Any]:
        """Run from the newest checkpoint, or from the start, until evaluation.json is written."""
        directory, parts = self.workdir / run_folder.CHECKPOINTS, self.parts
        train, held_out = read_data(self.settings, parts)
        self.progress.data = fingerprint(train, held_out) | self.evaluations.fingerprint
        hosts.check_same_data(self.progress.data)
        resumes = hosts.agree(lambda: bool(saved_steps(directory)))
        params = None if resumes else self.states.load_initial_params()
        files = starting.files_for(self.config, self.workdir)
        metric = parts.task.best_metric
        self.folder_lease.check()
        with Checkpoints(
            directory,
            keep=self.settings.checkpoint.keep,
            best_metric=metric,
            lower_is_better=catalogue.lower_is_better(metric),
            may_write=self.folder_lease.check,
        ) as checkpoints:
            state = self._restored(checkpoints) or self.states.initial(params, self.init_key)
            del params  # free a copy of the parameters
            if hosts.is_first():
                arithmetic.log(self.settings.model.compute_dtype)
                most = memory_check.checkpoints(self.settings, self.end.last)
                disk_space.log_size(directory, arrays(state), most)
            # After the state is built: if that fails, the folder remains unchanged.
            begin_folder = lambda: resume.begin(self.config, parts.method, files, self.workdir)
            hosts.agree(lambda: self._written(begin_folder))
            multihost.open_log(self.workdir)
            with self.preemption:
                state = self._steps(state, checkpoints, train, held_out)
                result = self._finish(state, checkpoints, held_out)
                self.preemption.check()  # before the next arm or the report starts
                return result

    def _written(self, write: Callable[[], T]) -> T:
        """Call `write` and return its result; a disk error becomes a one-line UserError."""
        self.folder_lease.check()
        with disk_errors.writing(self.workdir, disk_errors.RESUME):
            return write()

    def _restored(self, checkpoints: Checkpoints) -> TrainState | None:
        """Restore the newest intact checkpoint; return None if there is none."""
        restored = self.states.restore(checkpoints, self.init_key)
        if restored is None:
            return None
        state, saved = restored
        data, allowed = (saved.data, self.progress.data), self.allow_data_change
        hosts.agree(lambda: resume.check_data(*data, self.workdir, allowed))
        self.progress.totals, self.progress.unwritten = saved.totals, saved.unwritten
        of = f" of {self.end.last}" if self.end.last else ""
        LOGGER.info("resuming %s at step %d%s", self.workdir, int(state.step), of)
        return state

    def _trainer(self, train: Stream) -> Trainer:
        return self.parts.task.trainer(self.parts, train, self.optimizer, self.states.shardings)

    def _steps(
        self, state: TrainState, checkpoints: Checkpoints, train: Stream, held_out: HeldOut
    ) -> TrainState:
        """Take all remaining steps; log, evaluate and save checkpoints in between."""
        settings, step, totals = self.settings, int(state.step), self.progress.totals
        trainer, over = self._trainer(train), self.end.reached(step, totals)
        size = {"model.vocab_size": self.parts.method.model.vocab_size}
        task = self.parts.task
        rules = (*warning_rules.RULES, *task.warnings)
        watch = Watch(dict(fields(self.config)) | size, rules)
        written = step - bool(self.progress.unwritten)
        open_writer = lambda: MetricsWriter(self.workdir, written, watch, task.metrics)
        with (
            open_writer() if hosts.is_first() else NoMetrics() as writer,
            progress(self.end.last, written, self.label) as bar,
            StepTrace(profiled_steps(settings), self.workdir / run_folder.PROFILE) as trace,
        ):
            while not over or self.progress.unwritten:
                metrics, self.progress.unwritten = self.progress.unwritten, {}
                if not metrics:
                    with self._saved_if_stopped(state, checkpoints):
                        self.preemption.check()
                    with trace.step(step + 1):
                        state, metrics = self._one_step(trainer, state, train)
                    self.preemption.wait()  # from now on, signals wait for the end of a step
                    step += 1
                    over = self.end.reached(step, totals)
                evaluated = None
                if self.evaluations.due(step) and not over:
                    with self._saved_if_stopped(state, checkpoints, metrics):
                        evaluated = self.evaluations.during(step, state.params, held_out, totals)
                    metrics |= {HELD_OUT_PREFIX + name: value for name, value in evaluated.items()}
                self.folder_lease.check()
                writer.write(step, metrics)
                bar.set_postfix_str(brief(metrics), refresh=False)
                bar.total = self.end.expected(step, totals)
                bar.update(1)
                self._check_health(state, checkpoints, trainer.fault)
                if evaluated or (step % settings.checkpoint.every == 0 and not over):
                    self._save(state, checkpoints, evaluated)
                if self.on_step:
                    self.on_step({"step": step, **metrics})
        return state

    @contextlib.contextmanager
    def _saved_if_stopped(
        self,
        state: TrainState,
        checkpoints: Checkpoints,
        unwritten: Mapping[str, float] = MappingProxyType({}),
    ) -> Iterator[None]:
        """Save the state, with its metrics if they are not written yet, if a signal or a UserError
        stops what runs in this context. (After an error in one of several processes, the others
        would not take part in saving.)"""
        try:
            yield
        except (Preempted, UserError) as stop:
            if isinstance(stop, UserError) and hosts.count() > 1:
                raise
            self.progress.unwritten = dict(unwritten)
            self._save(state, checkpoints)
            checkpoints.wait()
            raise

    def _one_step(
        self, trainer: Trainer, state: TrainState, train: Stream
    ) -> tuple[TrainState, dict[str, float]]:
        """Train on the next batch; return the new state and the metrics of the step."""
        totals, size = self.progress.totals, self.settings.batch_size
        start, first = time.perf_counter(), totals.position
        rows = Rows(size, lambda row, count: train.batch(first + row, count))
        updates = int(state.step) * self.parts.task.updates_per_step - int(state.skipped)
        state, metrics, cost = trainer.step(state, rows, self.key)
        elapsed = time.perf_counter() - start
        totals.add(cost, elapsed, self.parts.mesh.size)
        totals.position += size
        seconds = {f"seconds_{stage}": value for stage, value in cost.seconds.items()}
        return state, metrics | totals.metrics() | seconds | self.speed.metrics(cost, elapsed) | {
            "learning_rate": float(self.optimizer.learning_rate(updates)),
            "skipped_updates": int(state.skipped),
        }

    def _check_health(self, state: TrainState, checkpoints: Checkpoints, fault: str) -> None:
        """Log the first non-finite value, and stop the run after too many skipped updates."""
        bad, step = int(state.skipped_in_row), int(state.step)
        if fault and not self.faulty:
            LOGGER.warning("step %d: %s", step, fault)
        self.faulty = bool(fault)
        if bad >= self.settings.max_bad_steps:
            checkpoints.wait()
            saved = ", ".join(map(str, checkpoints.steps))
            raise UserError(
                f"{bad} updates in a row had a loss or gradient that is not finite, the last at "
                f"step {step}; in the first of them: {fault or in_update({})}"
                + (f" (checkpoints exist for steps {saved})" if saved else "")
            )

    def _save(
        self, state: TrainState, checkpoints: Checkpoints, metrics: dict[str, float] | None = None
    ) -> None:
        self.folder_lease.check()
        measured = metrics is not None and self.parts.task.best_metric in metrics
        save(checkpoints, state, self.progress, metrics if measured else None)

    def _finish(
        self, state: TrainState, checkpoints: Checkpoints, held_out: HeldOut
    ) -> dict[str, Any]:
        """Evaluate and save the last state, and write evaluation.json and thoughts.json."""
        with self._saved_if_stopped(state, checkpoints):
            metrics = self.evaluations.at_end(state.params, held_out, self.progress.totals)
        self._save(state, checkpoints, metrics)
        browse = (self.settings, self.parts, state.params, held_out, self.evaluation_key)
        documents, responses = finish.browse_thoughts(*browse), finish.browse_responses(*browse)
        checkpoints.wait()
        result = finite(finish.result_of(state, self.end.last, metrics, self.progress.totals))
        write = lambda: finish.write(self.workdir, documents, responses, result)
        return hosts.agree(lambda: self._written(write))
