"""The training loop: where config, data, checkpoints and metrics meet.

    build       what the run is made of, checked        rlp.run.assembly
    state       restored, or started from another run, or fresh
    steps       batch k -> trainer -> metrics; evaluation and checkpoints on the way
    end         held-out figures, thoughts to look at, report

A run that was stopped at any moment goes on with the same command and ends with the same bits: the
state after step k is a function of the config alone, and record k of the data is too.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
from ml_collections import ConfigDict

from models.sharding import batch_shards
from models.transformer import Params, init
from rlp.data.batch import Answered, HeldOut, Stream
from rlp.data.fingerprint import fingerprint
from rlp.data.rows import Rows
from rlp.engine.nonfinite import in_update
from rlp.engine.placement import abstract_params, placed, state_shardings
from rlp.engine.step import TrainState, new_state
from rlp.engine.step.waves import cache_bytes, rollout_wave
from rlp.interop import init_from as starting
from rlp.metrics import catalogue, warning_rules
from rlp.metrics.metric import HELD_OUT_PREFIX
from rlp.metrics.watch import Watch
from rlp.metrics.writer import MetricsWriter, NoMetrics
from rlp.objectives.registry import find
from rlp.report import terminal_table, write_report_separately
from rlp.run import assembly as building
from rlp.run import memory_check
from rlp.run.assembly import Method, Run
from rlp.run.assembly_data import answers_problems, browse_rows, read_data
from rlp.run.checks import with_options
from rlp.run.model_files import keep, small_files
from rlp.runtime import consistency, disk_errors, hosts, lease, ownership, run_folder
from rlp.runtime.atomic_files import write_json
from rlp.runtime.config_json import check_same, fields, load_config, save_config
from rlp.runtime.errors import UserError
from rlp.runtime.fingerprints import Fingerprint, changes
from rlp.runtime.preemption import Preempted, Preemption
from rlp.runtime.progress import progress
from rlp.runtime.strict_json import finite, read_object
from rlp.training.budget import End
from rlp.training.checkpoint import Checkpoints, room
from rlp.training.checkpoint.folder import saved_steps
from rlp.training.cost import Totals
from rlp.training.trainers import AnswerTrainer, NextTokenTrainer, RLPTrainer, Trainer

LOGGER = logging.getLogger(__name__)
T = TypeVar("T")


def train(
    config: ConfigDict,
    workdir: str | Path,
    *,
    allow_config_change: bool = False,
    report: bool = True,
    explicit: Collection[str] = (),
) -> dict[str, Any]:
    """Runs a config in a folder, from where it stands to its end.

    Args:
      config: fields as in `configs/default.py`.
      workdir: folder of the run; made if need be, resumed if it holds a run of the same config.
      allow_config_change: resume although the config differs from the saved one; a finished run
        goes on if it does, or if it has a `match`, whose budget may have grown.
      report: write report.html and plots at the end.
      explicit: dotted paths of fields that were set by hand, as `init_from.adopt` takes them.

    Returns:
      The content of evaluation.json: held-out figures, "step", what `Totals.metrics` counts,
      "wall_s" (seconds).

    Raises:
      UserError: for input that cannot be used; nothing is written then.
      Preempted: a signal asked the run to stop, and its state is saved.
    """
    workdir = Path(workdir)
    hosts.agree(lambda: ownership.check(workdir, "run"))
    with lease.held(workdir) as holding:
        return _train(config, workdir, holding, allow_config_change, report, explicit)


def _train(
    config: ConfigDict,
    workdir: Path,
    holding: lease.Lease | lease.NoLease,
    allow_config_change: bool,
    report: bool,
    explicit: Collection[str],
) -> dict[str, Any]:
    """What `train` does in a folder that is held."""
    config = with_options(starting.adopt(config, workdir, explicit))
    hosts.check_same(
        {"--workdir": str(workdir), "--allow_config_change": allow_config_change}
        | consistency.of_config(dict(fields(config)))
    )
    check_config(config, workdir, allow_config_change)
    page = workdir / run_folder.REPORT
    goes_on = allow_config_change and (bool(config.match) or bool(_changes(config, workdir)))
    result, reported = hosts.agree(lambda: (_finished(workdir), page.exists()))
    result = None if goes_on else result
    if result is not None and (reported or not report):
        LOGGER.info("%s is finished; nothing to do", workdir)
        return result
    if result is None:
        files = starting.files_for(config, workdir)
        further = starting.keeps_further(config)
        starting.has_former_files(files, workdir, further)  # refuses what is in their way
        run = memory_check.build(config, files)
        # Refuses a tokenizer that cannot be exported with what the config says of it.
        small_files(run, files, starting.same_tokenizer(config, files), config.data)
        end = building.build_end(config, run.model)
        result = _Loop(config, workdir, run, end, holding, allow_config_change).run()
    if report:
        hosts.agree(lambda: _report(workdir, page, result))
    return result


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
        run: Run,
        end: End,
        holding: lease.Lease | lease.NoLease,
        allow_data_change: bool = False,
    ):
        self.config, self.workdir, self.made, self.end = config, workdir, run, end
        self.holding, self.allow_data_change = holding, allow_data_change
        self.preemption = Preemption()
        self.label = f"{workdir.name} {config.objective}"
        self.optimizer = building.build_optimizer(config, end.last)
        self.baseline, self.reference = building.copies_kept(config)
        self.shardings = state_shardings(
            run.mesh,
            run.model,
            self.optimizer,
            self.baseline,
            config.rlp.baseline_memory,
            self.reference,
        )
        self.init_key, self.key, self.evaluation_key = building.root_keys(config.seed)
        self.totals = Totals()
        self.data: dict[str, Fingerprint] = {}
        self.faulty = False  # the last step had a value that was not finite

    def run(self) -> dict[str, Any]:
        """From the newest checkpoint to evaluation.json."""
        directory = self.workdir / run_folder.CHECKPOINTS
        frame = self.made.answering.frame if self.made.answering else None
        made = self.made
        train, held_out = read_data(self.config, made.tokenizer, made.template, frame)
        self.data = fingerprint(train, held_out)
        hosts.check_same_data(self.data)
        begun = hosts.agree(lambda: bool(saved_steps(directory)))
        begin = None if begun else self._started_from()
        files = starting.files_for(self.config, self.workdir)
        metric = building.best_metric(self.config)
        self.holding.check()
        with Checkpoints(
            directory,
            keep=self.config.checkpoint.keep,
            best_metric=metric,
            lower_is_better=catalogue.lower_is_better(metric),
            may_write=self.holding.check,
        ) as checkpoints:
            state = self._restore(checkpoints) or self._fresh(begin)
            del begin  # it would take as much memory as the parameters, to the end
            if hosts.is_first():
                most = memory_check.checkpoints(self.config, self.end.last)
                room.tell(directory, _arrays(state), most)
            # Only now: a state that does not fit the config leaves the folder as it was.
            write = lambda: begin_folder(self.config, made, files, self.workdir)
            hosts.agree(lambda: self._written(write))
            hosts.open_log(self.workdir)
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

    def _started_from(self) -> Params | None:
        """The parameters to start from, before any long work; None for fresh ones."""
        if not self.config.init_from:
            return None
        shapes = abstract_params(self.made.model, self.made.mesh)
        start = starting.find(self.config.init_from)
        if start.config is None and start.files is not None:
            hosts.check_same(consistency.of_files(start.files))
        params, _, described = start.load(shapes)
        LOGGER.info("starting from %s", described)
        return params

    def _fresh(self, params: Params | None) -> TrainState:
        """The state before the first step."""
        if params is None:
            if building.thinks(self.config):
                LOGGER.warning("init_from is empty: thoughts start from random parameters")
            make = jax.jit(init, static_argnums=0, out_shardings=self.shardings.params)
            params = make(self.made.model, self.init_key)
        return jax.jit(self._begun, out_shardings=self.shardings)(params)

    def _begun(self, params: Params) -> TrainState:
        return new_state(params, self.optimizer, self.baseline, self.reference)

    def _restore(self, checkpoints: Checkpoints) -> TrainState | None:
        """The newest whole checkpoint, or None."""
        blank = jax.eval_shape(lambda: self._begun(init(self.made.model, self.init_key)))
        abstract = placed(blank, self.shardings)
        found = checkpoints.restore(_arrays(abstract))
        if found is None:
            return None
        step, items = found
        hosts.agree(lambda: self._check_data(items["data"].get("fingerprint", {})))
        self.totals = Totals(**items["meta"]["totals"], position=items["data"]["position"])
        of = f" of {self.end.last}" if self.end.last else ""
        LOGGER.info("resuming %s at step %d%s", self.workdir, step, of)
        return TrainState(
            baseline=items.get("baseline"),
            reference=items.get("reference"),
            **items["counters"],
            **{name: items[name] for name in ("params", "optimizer")},
        )

    def _check_data(self, saved: dict[str, Fingerprint]) -> None:
        """Refuses to go on with other data than those of the checkpoint, unless that is allowed."""
        if not (changed := changes(saved, self.data)):
            return
        told = "; ".join(changed)
        if not self.allow_data_change:
            raise UserError(
                f"{self.workdir} holds a run on other data ({told}); restore them, take another "
                "--workdir, or --allow_config_change to go on with the new data"
            )
        LOGGER.warning("going on with other data: %s", told)

    def _trainer(self, train: Stream) -> Trainer:
        made = self.made
        if not building.thinks(self.config):
            return NextTokenTrainer(made.model, self.optimizer, made.mesh, self.shardings)
        settings, words = made.sampled
        wave = rollout_wave(settings, self.config.batch_size, batch_shards(made.mesh))
        length = self.config.data.sequence_length
        LOGGER.info(
            "a wave of the rollout: %d documents, %d forks of each, %d thoughts a fork, %.3g MiB",
            *wave,
            settings.group_size,
            cache_bytes(made.model, settings, words, length, *wave) / 2**20,
        )
        if answers_problems(self.config):
            common = (self.optimizer, made.mesh, self.shardings)
            assert made.answering is not None
            assert isinstance(train, Answered)
            return AnswerTrainer(made.model, made.answering, train.answer, *common)
        return RLPTrainer(
            made.model,
            made.settings,
            made.vocabulary,
            self.optimizer,
            made.mesh,
            self.shardings,
            made.evaluator.table,
        )

    def _steps(
        self, state: TrainState, checkpoints: Checkpoints, train: Stream, held_out: HeldOut
    ) -> TrainState:
        """All steps that are left, with the evaluations and checkpoints between them."""
        config, step = self.config, int(state.step)
        trainer, over = self._trainer(train), self.end.reached(step, self.totals)
        settings = dict(fields(config)) | {"model.vocab_size": self.made.model.vocab_size}
        watch = Watch(settings, warning_rules.RULES)
        brought = tuple(find(config.objective).metrics) if building.thinks(config) else ()
        writing = lambda: MetricsWriter(self.workdir, step, watch, brought)
        with (
            writing() if hosts.is_first() else NoMetrics() as writer,
            progress(self.end.last, step, self.label) as bar,
        ):
            while not over:
                try:
                    self.preemption.check()
                except Preempted:
                    self._save(state, checkpoints)
                    checkpoints.wait()
                    raise
                state, metrics = self._one_step(trainer, state, train)
                self.preemption.wait()  # from now on there is something to save
                step += 1
                over = self.end.reached(step, self.totals)
                figures = None
                every = config.evaluation.every
                if every and step % every == 0 and not over:
                    figures = self._evaluate(state, held_out)
                    metrics |= {HELD_OUT_PREFIX + name: value for name, value in figures.items()}
                self.holding.check()
                writer.write(step, metrics)
                bar.set_postfix_str(_brief(metrics), refresh=False)
                bar.total = self.end.expected(step, self.totals)
                bar.update(1)
                self._check_health(state, checkpoints, trainer.fault)
                if figures or (step % config.checkpoint.every == 0 and not over):
                    self._save(state, checkpoints, figures)
        return state

    def _one_step(
        self, trainer: Trainer, state: TrainState, train: Stream
    ) -> tuple[TrainState, dict[str, float]]:
        start, first = time.perf_counter(), self.totals.position
        rows = Rows(self.config.batch_size, lambda row, size: train.batch(first + row, size))
        per_step = building.updates_per_step(self.config)
        updates = int(state.step) * per_step - int(state.skipped)
        state, metrics, cost = trainer.step(state, rows, self.key)
        self.totals.add(cost, time.perf_counter() - start, self.made.mesh.size)
        self.totals.position += self.config.batch_size
        seconds = {f"seconds_{stage}": value for stage, value in cost.seconds.items()}
        return state, metrics | self.totals.metrics() | seconds | {
            "learning_rate": float(self.optimizer.learning_rate(updates)),
            "skipped_updates": int(state.skipped),
        }

    def _check_health(self, state: TrainState, checkpoints: Checkpoints, fault: str) -> None:
        """Stops a run that only produces numbers that are not finite; names the first of them."""
        bad, step = int(state.skipped_in_row), int(state.step)
        if fault and not self.faulty:
            LOGGER.warning("step %d: %s", step, fault)
        self.faulty = bool(fault)
        if bad >= self.config.max_bad_steps:
            checkpoints.wait()
            saved = ", ".join(map(str, checkpoints.steps))
            raise UserError(
                f"{bad} updates in a row had a loss or gradient that is not finite, the last at "
                f"step {step}; {fault or in_update({})}"
                + (f" (there are checkpoints of steps {saved})" if saved else "")
            )

    def _evaluate(
        self, state: TrainState, held_out: HeldOut, watch: Callable[[list], Iterable] = iter
    ) -> dict[str, float]:
        start = time.perf_counter()
        figures = self.made.evaluator.evaluate(state.params, held_out, self.evaluation_key, watch)
        self.totals.seconds_evaluate += time.perf_counter() - start
        return figures

    def _watched(self, parts: list) -> Iterator:
        """The parts of the final evaluation, under a bar of their own; a signal ends them."""
        label = f"{self.workdir.name} evaluation"
        with progress(len(parts), 0, label, "batch") as bar:
            for part in self.preemption.watch(parts):
                yield part
                bar.update(1)

    def _save(
        self,
        state: TrainState,
        checkpoints: Checkpoints,
        figures: dict[str, float] | None = None,
    ) -> None:
        self.holding.check()
        totals = dataclasses.asdict(self.totals)
        data = {"position": totals.pop("position"), "fingerprint": self.data}
        items = _arrays(state) | {"data": data, "meta": {"totals": totals}}
        checkpoints.save(int(state.step), items, figures)

    def _finish(
        self, state: TrainState, checkpoints: Checkpoints, held_out: HeldOut
    ) -> dict[str, Any]:
        """Held-out figures and thoughts of the last step, and its checkpoint."""
        try:
            figures = self._evaluate(state, held_out, self._watched)
        except Preempted:
            self._save(state, checkpoints)
            checkpoints.wait()
            raise
        self._save(state, checkpoints, figures)
        documents, responses = self._thoughts(state, held_out), self._responses(state, held_out)
        checkpoints.wait()
        step = int(state.step)
        wall = {"train": self.totals.seconds_train, "evaluate": self.totals.seconds_evaluate}
        result = {
            "step": step,
            "steps": self.end.last or step,
            **figures,
            **self.totals.metrics(),
            "skipped_updates": int(state.skipped),
            "wall_s": wall,
        }
        write = lambda: self._end_folder(documents, responses, finite(result))
        return hosts.agree(lambda: self._written(write))

    def _thoughts(self, state: TrainState, held_out: HeldOut) -> list[dict]:
        """Thoughts along a few held-out documents, where there are any."""
        if held_out.documents is None:
            return []
        return self.made.evaluator.browse(
            state.params,
            browse_rows(held_out.documents, self.config.evaluation.browse_documents),
            self.evaluation_key,
            self.made.tokenizer.pieces,
            self.made.separator,
            self.config.evaluation.browse_positions,
        )

    def _responses(self, state: TrainState, held_out: HeldOut) -> list[dict]:
        """Responses to a few held-out problems, where there are any."""
        answers, count = self.made.evaluator.answers, self.config.evaluation.browse_documents
        if answers is None:
            return []
        return answers.browse(state.params, held_out.problems, self.evaluation_key, count)

    def _end_folder(
        self, documents: list[dict], responses: list[dict], result: dict[str, Any]
    ) -> dict[str, Any]:
        """Writes thoughts, responses and figures; a run with evaluation.json is finished."""
        thoughts = {"step": result["step"], "documents": documents}
        write_json(self.workdir / run_folder.THOUGHTS, thoughts)
        if responses:
            answers = {"step": result["step"], "problems": responses}
            write_json(self.workdir / run_folder.RESPONSES, answers)
        write_json(self.workdir / run_folder.EVALUATION, result)
        return result


def begin_folder(config: ConfigDict, made: Method, files: Path | None, workdir: Path) -> None:
    """Puts into the folder of a run what it needs to go on, and its config last.

    Args:
      config: of the run.
      made: of it.
      files: as of `rlp.interop.init_from.files_for`.
      workdir: its folder.
    """
    known = starting.same_tokenizer(config, files)
    starting.copy_files(files, workdir, starting.keeps_further(config))
    keep(workdir / run_folder.HF, made, known, config.data)
    (workdir / run_folder.EVALUATION).unlink(missing_ok=True)  # first: it is of that config
    save_config(config, workdir / run_folder.CONFIG)


def _brief(metrics: dict[str, float]) -> str:
    """The figures that stand behind the progress bar."""
    if "reward_mean" not in metrics:
        return f"loss {metrics['loss']:.3f}"
    return f"reward {metrics['reward_mean']:+.3f}, closed {metrics['closed_fraction']:.2f}"


def _arrays(state: TrainState) -> dict[str, Any]:
    """The array items of a checkpoint."""
    items = {
        "params": state.params,
        "optimizer": state.optimizer,
        "counters": {
            "step": state.step,
            "skipped": state.skipped,
            "skipped_in_row": state.skipped_in_row,
        },
    }
    beside = {"baseline": state.baseline, "reference": state.reference}
    return items | {name: params for name, params in beside.items() if params is not None}


def check_config(config: ConfigDict, workdir: Path, allow_config_change: bool) -> None:
    """Refuses a folder that holds a run of another config."""
    if not allow_config_change and (changes := _changes(config, workdir)):
        raise UserError(
            f"{workdir} holds a run of another config ({'; '.join(changes)}); take another "
            "--workdir, or --allow_config_change to go on with the new config"
        )


def _changes(config: ConfigDict, workdir: Path) -> list[str]:
    """What differs from the run in the folder, as `check_same` says it; nothing without one."""
    saved = workdir / run_folder.CONFIG
    if not saved.exists():
        return []
    changes = check_same(load_config(saved), with_options(config))
    if starting.changed_template(config, workdir):
        changes.append(f"data.chat_template: {config.data.chat_template} has another content")
    return changes


def _finished(workdir: Path) -> dict[str, Any] | None:
    """evaluation.json of a finished run; None for a run that is to be evaluated (again).

    Raises:
      UserError: the file is damaged, and there is no checkpoint to make it again from.
    """
    path = workdir / run_folder.EVALUATION
    if not path.exists():
        return None
    try:
        result = read_object(path)
        if "step" in result:
            return result
        raise UserError(f"{path} has no step; the file is damaged")
    except UserError as error:
        if not saved_steps(workdir / run_folder.CHECKPOINTS):
            raise
        LOGGER.warning("%s: the last checkpoint is evaluated again", error)
        return None
