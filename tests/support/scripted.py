"""A model whose responses are scripted, for tests of evaluations."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from rlp.evaluation.generation.generator import Request, Response
from rlp.evaluation.options.questions import OptionScore
from rlp.evaluation.runner.model import EvaluatedModel
from rlp.tokenizers.byte_tokenizer import ByteTokenizer

SIZE = SimpleNamespace(vocab_size=ByteTokenizer().vocab_size)


class Killed(Exception):
    """Raised in place of a kill."""


@dataclasses.dataclass
class ScriptedGenerator:
    """Responds to every prompt by a function of its text and the seed; counts its requests."""

    respond: Callable[[str, int], str]
    most: int = 10**9  # responses until it is killed
    requests: list[Request] = dataclasses.field(default_factory=list)
    model = SIZE
    context = None

    def generate(self, requests, done):
        for number, request in reversed(list(enumerate(requests))):
            if len(self.requests) >= self.most:
                raise Killed
            self.requests.append(request)
            text = self.respond(ByteTokenizer().decode(request.prompt), request.seed)
            tokens = tuple(text.encode())
            finish = "length" if len(tokens) > request.max_tokens else "stop"
            done(number, Response(tokens, text, (0.0,) * len(tokens), finish))


@dataclasses.dataclass
class ScriptedScorer:
    """Gives an option the log-likelihood that a function of context and option returns."""

    logprob: Callable[[str, str], float]
    questions: int = 0
    method = SimpleNamespace(model=SIZE)

    def score(self, questions, done):
        decode = ByteTokenizer().decode
        for number, question in enumerate(questions):
            self.questions += 1
            values = [self.logprob(decode(question.context), decode(o)) for o in question.options]
            done(number, [OptionScore(value, False, 1) for value in values])


def scripted_model(name: str, respond=None, logprob=None, **fields: Any) -> EvaluatedModel:
    generator: Any = ScriptedGenerator(respond)
    scorer: Any = ScriptedScorer(logprob)
    values: dict[str, Any] = {
        "name": name,
        "identity": {"parameters": name},
        "tokenizer": ByteTokenizer(),
        "template": None,
        "ends": (258,),
        "generator": generator,
        "scorer": scorer,
    }
    return EvaluatedModel(**values | fields)
