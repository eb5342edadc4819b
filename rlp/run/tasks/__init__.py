"""What kind of run a config describes: one class per kind, and the one place that picks it.

    next_token  next-token prediction on documents, on pairs of prompt and response, or on both
    thoughts    thoughts at positions of documents, rewarded by the text that follows (RLP, …)
    answers     responses to problems, rewarded by a verifier (RLVR, …)

A new kind of run is a class in a file of its own, and a line of `find`.
"""

from ml_collections import ConfigDict

from rlp.objectives import registry
from rlp.run.tasks.answers import Answers
from rlp.run.tasks.next_token import NextToken
from rlp.run.tasks.task import Settings, Task
from rlp.run.tasks.thoughts import Thoughts
from rlp.runtime.config_json import fields

__all__ = ["Answers", "NextToken", "Task", "Thoughts", "find", "of"]


def of(config: ConfigDict) -> Task:
    """The task of a config; errors as of `find`."""
    return find(dict(fields(config)))


def find(config: Settings) -> Task:
    """The task of a config.

    Args:
      config: dotted path of every field to its value.

    Raises:
      UserError: there is no such objective.
    """
    name = str(config["objective"])
    if name == NextToken.name:
        return NextToken(config)
    objective = registry.find(name)
    kind = Answers if "answers" in objective.reads else Thoughts
    return kind(config, objective)
