"""What kind of run a config describes: one class per kind, and the one place that picks it.

    next_token  next-token prediction on documents, on pairs of prompt and response, or on both
    thoughts    thoughts at positions of documents, rewarded by the text that follows (RLP, …)
    answers     responses to problems, rewarded by a verifier (RLVR, …)

A new kind of run is a class in a file of its own, and a line of `of`.
"""

from configs.default import Config
from rlp.objectives import registry
from rlp.run.tasks.answers import Answers
from rlp.run.tasks.next_token import NextToken
from rlp.run.tasks.task import Task
from rlp.run.tasks.thoughts import Thoughts

__all__ = ["Answers", "NextToken", "Task", "Thoughts", "of"]


def of(config: Config) -> Task:
    """The task of a config.

    Raises:
      UserError: there is no such objective.
    """
    if config.objective == NextToken.name:
        return NextToken(config)
    kind = Answers if registry.reads_answers(config.objective) else Thoughts
    return kind(config, registry.find(config.objective))
