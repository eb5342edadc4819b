"""From a config to how problems are answered: what is sampled, and who checks it."""

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
from rlp.run.method import TextMethod, named
from rlp.run.tasks import Task
from rlp.run.text_fields import file_text
from rlp.runtime.errors import UserError


def planning_phrases(config: Config) -> tuple[str, ...]:
    """The phrases that plan (HICRA, arXiv 2509.03646)."""
    named = config.data.problems.planning
    if named == "default":
        return PHRASES
    lines = file_text("data.problems.planning", named, "'default'").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def build_answering(config: Config, task: Task, method: TextMethod) -> Answering | None:
    """How responses to problems are sampled and checked; None for a run without problems.

    Raises:
      UserError: there is no such verifier, or what the task needs is missing from the tokenizer or
        the template.
    """
    if not task.asks_problems:
        return None
    problems, tokenizer = config.data.problems, method.tokenizer
    objective, verifier = task.answer_objective, named(lambda: find_verifier(problems.verifier))
    if not verifier.compares and find(objective).reward is rewards.agrees:
        raise UserError.of(
            "objective",
            objective,
            "rewards the answer of the majority, and the function that "
            f"data.problems.verifier={problems.verifier!r} names compares no answers; give a "
            "Verifier with extract and equal, or set objective to 'rlvr'",
        )
    texts = None
    if find(objective).weighs_planning:
        texts = tokenizer.token_bytes()
        if not any(texts):
            raise UserError.of(
                "objective",
                objective,
                "finds phrases in the bytes of tokens, and those of this tokenizer have none; "
                "take byte-level BPE, or objective='rlvr'",
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
