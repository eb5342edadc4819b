"""Build what samples responses to problems and grades them."""

from configs.default import Config
from rlp.answers.planning_phrases import PHRASES
from rlp.answers.verifiers import find as find_verifier
from rlp.engine.branches import response_vocabulary
from rlp.engine.method import Method
from rlp.evaluation.answering import Answering
from rlp.evaluation.response_format import begins_in_thought, make_response_format
from rlp.objectives import rewards
from rlp.objectives.registry import find
from rlp.run.grader import make_grader
from rlp.run.method import TextMethod, as_user_error
from rlp.run.tasks import Task
from rlp.run.text_fields import file_text
from rlp.runtime.errors import UserError


def planning_phrases(config: Config) -> tuple[str, ...]:
    """Return the planning phrases (HICRA, arXiv 2509.03646)."""
    source = config.data.problems.planning
    if source == "default":
        return PHRASES
    lines = file_text("data.problems.planning", source, "'default'").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def build_answering(config: Config, task: Task, method: TextMethod) -> Answering | None:
    """Build the sampling and grading of responses; return None for a run without problems.

    Raises:
      UserError: If the verifier is unknown or does not suit the objective, or if the tokenizer or
        the chat template lacks what the task needs.
    """
    if not task.answers_problems:
        return None
    problems, tokenizer = config.data.problems, method.tokenizer
    objective = task.answer_objective
    verifier = as_user_error(lambda: find_verifier(problems.verifier))
    if not verifier.compares and find(objective).reward is rewards.agrees:
        raise UserError.of(
            "objective",
            objective,
            "rewards the majority answer, but the function "
            f"data.problems.verifier={problems.verifier!r} does not compare answers; use a "
            "Verifier with extract and equal, or set objective to 'rlvr'",
        )
    texts = None
    if find(objective).weighs_planning:
        texts = tokenizer.token_bytes()
        if not any(texts):
            raise UserError.of(
                "objective",
                objective,
                "finds phrases in the bytes of tokens, which this tokenizer does not define; use a "
                "byte-level BPE tokenizer, or objective='rlvr'",
            )
    response_format = make_response_format(tokenizer, method.template, problems.think)
    return Answering(
        method=Method(
            method.model,
            task.response_settings(method.settings),
            response_vocabulary(method.vocabulary, response_format.opening, response_format.end),
        ),
        response_format=response_format,
        grader=make_grader(config, begins_in_thought(response_format, tokenizer)),
        decode=tokenizer.decode,
        texts=texts,
        phrases=planning_phrases(config),
    )
