"""RLP on a real pretrained model, one setting and one seed, on two CPU cores: `make real`.

    python -m launch.real --setting=a --seed=0 --workdir=runs/real/a-0
    python -m launch.real --setting=a --seed=0 --workdir=runs/real/a-0-small --scale=small
    python -m launch.real --setting=b --seed=0 --workdir=runs/real/b-0 --data=my_benchmarks

The stages, each of which is skipped if it is finished:

    start      SmolLM2-135M-Instruct with thinking tags             <workdir>/start
    texts      problems for warm start, RL, development and test    <workdir>/texts
    chain      warm start, RLP, controls, CPT, RLVR after each      <workdir>/chain
    measures   all documents of the test split, by arm              <workdir>/measures
    results    scores by document, and the table                    <workdir>/results.json, .md

The same command resumes a unit that was stopped. `make models` fetches the model. --data is a
folder with gsm8k/train.jsonl and gsm8k/test.jsonl (docs/real_model.md).
"""

import dataclasses
import functools
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags, logging

from configs.real import a, b, grade_school, recipe, sums, texts
from configs.real.problems import MARKER, Problem
from launch import program
from rlp.runtime import run_folder, signals
from rlp.runtime.atomic_files import unfinished
from rlp.runtime.errors import UserError

_SETTING = flags.DEFINE_enum(
    "setting", "a", ["a", "b"], "a: sums of several numbers; b: GSM8K, which needs --data"
)
_SEED = flags.DEFINE_integer("seed", 0, "seed of problems and runs", lower_bound=0)
_SCALE = flags.DEFINE_enum("scale", "full", ["full", "small"], "small: a sixteenth of the steps")
_DATA = flags.DEFINE_string("data", "", "folder of benchmarks, for setting b")
_MODEL = flags.DEFINE_string(
    "model", ".cache/models/smollm2-135m-instruct.gguf", "the model, which `make models` fetches"
)
_WORKDIR = program.define_output("workdir", "folder of the unit")

TAGS = "<think>,</think>"
SETTINGS = {"a": a.SETTING, "b": b.SETTING}
FILES = {"b": ("gsm8k/train.jsonl", "gsm8k/test.jsonl")}  # in --data, by setting


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of the unit.

    Attributes:
      name: of the stage.
      output: what exists when it is finished.
      run: runs or resumes it.
    """

    name: str
    output: Path
    run: Callable[[], None]


def main(_: Sequence[str]) -> None:
    """Run the stages that are not finished."""
    workdir = Path(_WORKDIR.value)
    _check(workdir)
    all_stages = stages(workdir)
    for number, stage in enumerate(all_stages, 1):
        where = f"stage {number} of {len(all_stages)}, {stage.name}"
        if stage.output.exists():
            logging.info("%s: finished before", where)
            continue
        logging.info("%s: begins", where)
        start = time.monotonic()
        stage.run()
        if not stage.output.exists():
            raise SystemExit(f"{where}: stopped; the same command resumes it")
        logging.info("%s: finished in %.0f s", where, time.monotonic() - start)
    print((workdir / "results.md").read_text(encoding="utf-8"))
    print(f"results: {workdir / 'results.json'}")


def _check(workdir: Path) -> None:
    """Refuse what would fail in a later stage."""
    if not (workdir / "start").exists() and not Path(_MODEL.value).exists():
        raise UserError(f"--model={_MODEL.value} does not exist; fetch it with: make models")
    if (workdir / "texts").exists():
        return
    for name in FILES.get(_SETTING.value, ()):
        if not (path := Path(_DATA.value) / name).is_file():
            raise UserError(
                f"{path} does not exist; set --data to a folder that has {name}, from "
                "github.com/openai/grade-school-math"
            )


def stages(workdir: Path) -> list[Stage]:
    """Return the stages of the unit in a workdir."""
    setting = SETTINGS[_SETTING.value]
    spec = f"{workdir},{_SCALE.value}"
    config = recipe.chain(setting, spec)
    arms = [name for name in config.arms if name != "warm" and not name.endswith("_rlvr")]
    start, chain = workdir / "start", workdir / "chain"
    add_tags = lambda: _program(
        "launch.import_hf", f"--hf={_MODEL.value}", f"--add_tokens={TAGS}", f"--out={start}"
    )
    train = lambda: _program(
        "launch.pipeline",
        f"--config=configs/real/{_SETTING.value}.py:{spec}",
        f"--workdir={chain}",
        f"--config.seed={_SEED.value}",
    )
    measure = lambda arm: _program(
        "launch.measure",
        f"--checkpoint={arm}={chain / arm}",
        f"--text={workdir / 'texts' / 'test.jsonl'}",
        f"--documents={round(setting.sizes.test * recipe.SCALES[_SCALE.value])}",
        f"--fork_marker={MARKER}",
        f"--horizon={config.rlp.horizon}",
        f"--length={config.rlp.thought_length}",
        f"--temperature={config.rlp.temperature}",
        f"--thoughts={config.evaluation.thoughts}",
        f"--window={setting.document}",
        f"--seed={_SEED.value}",
        f"--out={workdir / 'measures' / arm}",
    )
    return [
        Stage("start", start, add_tags),
        Stage("texts", folder := workdir / "texts", lambda: _write_texts(folder, start, setting)),
        Stage("chain", chain / run_folder.PIPELINE, train),
        *(
            Stage(f"measures of {arm}", workdir / "measures" / arm, functools.partial(measure, arm))
            for arm in arms
        ),
        Stage("results", workdir / "results.md", lambda: _write_results(workdir)),
    ]


def _write_texts(folder: Path, start: Path, setting: recipe.Setting) -> None:
    """Write the problems that fit in the sizes of the setting."""
    from rlp.tokenizers.load import load_tokenizer

    tokenizer = load_tokenizer(str(start / run_folder.HF))
    tokens = lambda text: len(tokenizer.encode(text))

    def fits(problem: Problem) -> bool:
        """Whether a problem leaves room for a closing tag and the end of a document."""
        return (
            tokens(problem.document()) < setting.document
            and tokens(problem.thought) < setting.thought
            and tokens(f" {problem.answer}.") < setting.answer
        )

    seed = _SEED.value
    if _SETTING.value in FILES:
        problems, tests = (filter(fits, _grade_school(name)) for name in FILES[_SETTING.value])
    else:
        problems = tests = filter(fits, sums.draw(sums.Level(), seed))
    with unfinished(folder) as scratch:
        texts.write(scratch, texts.split(problems, tests, setting.sizes), seed)


def _grade_school(name: str) -> list[Problem]:
    path = Path(_DATA.value) / name
    try:
        return grade_school.read(path, _SEED.value)
    except ValueError as error:
        raise UserError(f"{path} is not the file of GSM8K: {error}") from error


def _write_results(workdir: Path) -> None:
    from rlp.run import real_model

    real_model.write(workdir, _SETTING.value, _SEED.value, _SCALE.value)


def _program(module: str, *arguments: str) -> None:
    """Run a program of this project; end with its status if it fails.

    It does not see signals to this process, which passes on one SIGTERM and waits: at a second
    signal a run would end without saving.
    """
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, start_new_session=True) as process:

        def end() -> None:
            process.terminate()
            process.wait()

        forget = signals.before_end(end)
        status = process.wait()
        forget()
    if status:
        raise SystemExit(status)


if __name__ == "__main__":
    program.run(main)
