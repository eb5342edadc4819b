"""What a model cannot answer is found when a task is checked, which names the problem."""

from pathlib import Path

import pytest

from rlp.evaluation.benchmarks.benchmark import Benchmark, OptionScoring, Problem, Prompt
from rlp.evaluation.benchmarks.files import ProblemSet
from rlp.evaluation.benchmarks.suites import Entry
from rlp.evaluation.runner.posed import Posed
from rlp.evaluation.runner.settings import Settings
from rlp.runtime.errors import UserError
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from tests.support.scripted import scripted_model


class Merging(ByteTokenizer):
    """A tokenizer that has a token for "(A"."""

    def encode(self, text):
        return super().encode(text.replace("(A", "\x01"))


class Chatting(ByteTokenizer):
    """A tokenizer with the simplest chats."""

    def chat(self, messages, template, ask):
        return "".join(x["content"] + "\n" for x in messages) + (template if ask else "")


def task(model, prompts=(), options=(), **settings):
    """Return a task with one problem as it is posed to a model."""
    about = {"name": "words", "title": "Words", "group": "other", "size": 1, "file": "words"}
    about |= {"source": "here", "licence": "CC0", "read": lambda path: []}
    benchmark = Benchmark(**about, prompts=prompts, options=options)
    problem = Problem("p7", "north or east?", "A", ("north", "east"))
    entry = Entry("words", "words", "", 1, 0.0, 1.0, by_likelihood=bool(options))
    posed = Posed(entry, ProblemSet(benchmark, Path("words"), (problem,)))
    return posed.to(model, Settings(**settings), Path())


def test_an_option_without_tokens():
    context = Prompt("context", "2026-11", "here", "{problem} (", chat=False)
    scoring = OptionScoring(context, lambda problem: ("A", "B"))
    model = scripted_model("base", tokenizer=Merging())
    with pytest.raises(UserError, match="^words, problem p7: .* has an option without tokens"):
        task(model, options=(scoring,)).check()


def test_an_empty_stop_string():
    prompt = Prompt("ask", "2026-11", "here", "{problem}", chat=False, stop=("\n", ""))
    with pytest.raises(UserError, match="^words, problem p7: a stop string is empty"):
        task(scripted_model("base"), prompts=(prompt,)).check()


def test_a_template_that_opens_a_thought():
    prompt = Prompt("ask", "2026-11", "here", "{problem}")
    model = scripted_model("m", tokenizer=Chatting(), template=" <think>\n")
    with pytest.raises(UserError, match="of m opens a thought itself; leave out --think"):
        task(model, prompts=(prompt,), think=True).check()
    task(model, prompts=(prompt,)).check()
