"""The kinds of runs: one class per kind, and `of`, which selects the class for a config.

    next_token  next-token prediction on documents, on prompt-response pairs, or on both
    thoughts    RL on thoughts at positions of documents, rewarded by the text that follows (RLP, …)
    answers     RL on responses to problems, rewarded by a verifier (RLVR, …)

To add a kind of run, add a class in a new file and select it in `of`.
"""

from configs.default import Config
from rlp.objectives import registry
from rlp.run.tasks.answers import Answers
from rlp.run.tasks.next_token import NextToken
from rlp.run.tasks.task import Task
from rlp.run.tasks.thoughts import Thoughts

__all__ = ["Answers", "NextToken", "Task", "Thoughts", "of"]


def of(config: Config) -> Task:
    """Return the task of a config.

    Raises:
      UserError: If the objective is unknown.
    """
    if config.objective == NextToken.name:
        return NextToken(config)
    kind = Answers if registry.reads_answers(config.objective) else Thoughts
    return kind(config, registry.find(config.objective))
