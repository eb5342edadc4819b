"""Build the grader of answers from a config."""

from configs.default import Config
from rlp.answers.grading import Grader
from rlp.tokenizers.tokenizer import THINK_CLOSE, THINK_OPEN


def make_grader(config: Config, opened: bool = False) -> Grader:
    """Build the grader; `opened` means that responses begin inside a thought."""
    data = config.data
    return Grader(
        verifier=data.problems.verifier,
        time_limit=data.problems.time_limit,
        workers=data.problems.workers,
        close=THINK_CLOSE,
        open=THINK_OPEN,
        opened=opened,
        memory_limit=data.problems.memory_limit,
        step_time_limit=data.problems.step_time_limit,
    )
