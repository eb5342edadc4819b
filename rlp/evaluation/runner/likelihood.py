"""Tasks whose answers are options, chosen by their log-likelihood, with and without thoughts."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlp.evaluation.benchmarks.benchmark import OptionScoring, Problem
from rlp.evaluation.benchmarks.metrics import score
from rlp.evaluation.generation.single import Thought
from rlp.evaluation.options.questions import (
    OptionScore,
    Question,
    check_questions,
    mean_over_thoughts,
)
from rlp.evaluation.runner.answer_file import Key
from rlp.evaluation.runner.result import Answer, Result
from rlp.evaluation.runner.task import Add, Records, Task, identity, seed_of, texts_of
from rlp.runtime.errors import UserError

TEMPERATURE = 0.7  # of thoughts


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class LikelihoodTask(Task):
    """A task with a context, and options after it.

    Attributes:
      scoring: contexts and options.
      thoughts: sampled thoughts before the options; 0 for none.
      thought_length: most tokens of a thought.
    """

    scoring: OptionScoring
    thoughts: int
    thought_length: int

    def facts(self) -> dict[str, Any]:
        """See `Task`."""
        thinking = {"thoughts": self.thoughts}
        if self.thoughts:
            thinking |= {"thought_length": self.thought_length, "seed": self.seed}
        return {
            "task": self.problems.benchmark.name,
            "model": self.model.identity,
            "context": self.scoring.context.name,
            "context_date": self.scoring.context.date,
            **thinking,
        }

    def identities(self) -> dict[str, str]:
        """See `Task`."""
        return {name: identity(question) for name, question in self._questions.items()}

    def wording(self) -> tuple[str, ...]:
        """See `Task`."""
        return texts_of(self.scoring.context)

    def check(self) -> None:
        """See `Task`."""
        longest, rows = self.model.longest, self.model.scorer.method.model.vocab_size
        thought = self.thoughts and self.model.scorer.thought_tokens(self.thought_length)
        for name, question in self._questions.items():
            needed = len(question.context) + thought + max(map(len, question.options))
            if longest and needed > longest:
                shorter = f", or {self.cures.shorter_thoughts}" if self.thoughts else ""
                raise UserError(
                    f"{self.entry.task}, problem {name}: its context with thought and option has "
                    f"{needed:,} tokens, but {self.model.name} reads {longest:,}; choose a context "
                    f"with fewer examples as the prompt{shorter}"
                )
            with self.naming(name):
                check_questions([question], rows, longest, thought)

    def run(self, finished: Sequence[Key], add: Add) -> None:
        """See `Task`."""
        known = {problem for problem, _ in finished}
        missing = [problem for problem in self.problems.problems if problem.id not in known]
        questions = [self._questions[problem.id] for problem in missing]
        lengths: dict[int, list[int]] = {}
        closed: dict[int, list[bool]] = {}

        def scored(number: int, scores: list[OptionScore]) -> None:
            logprobs = [option.logprob for option in scores]
            add(missing[number].id, 0, {"logprobs": logprobs})

        def sampled(number: int, thoughts: list[Thought]) -> None:
            lengths[number] = [len(thought.words) for thought in thoughts]
            closed[number] = [thought.closed for thought in thoughts]

        def scored_after(number: int, scores: list[list[OptionScore]]) -> None:
            record = {
                "logprobs": mean_over_thoughts(scores),
                "by_thought": [[option.logprob for option in options] for options in scores],
                "tokens": lengths.pop(number),
                "closed": closed.pop(number),
            }
            add(missing[number].id, 0, record)

        if questions and self.thoughts:
            self.model.scorer.score_after_thoughts(
                questions,
                self.thoughts,
                self.thought_length,
                TEMPERATURE,
                seed_of(self.seed, self.problems.benchmark.name),
                scored_after,
                sampled,
            )
        elif questions:
            self.model.scorer.score(questions, scored)

    def result(self, records: Records) -> Result:
        """See `Task`."""
        answers = [
            [self._answer(problem, records[problem.id, 0])] for problem in self.problems.problems
        ]
        each = lambda name: np.array([[getattr(a, name) for a in row] for row in answers])
        none = np.zeros((self.total, 1), bool)
        letters = [[answer.answer for answer in row] for row in answers]
        failed = np.array([[letter is None for letter in row] for row in letters])
        scores = score(each("correct"), letters, ~none, each("truncated"), failed)
        thinking = f"after {self.thoughts} thoughts" if self.thoughts else "no thought"
        context = self.scoring.context
        return Result(
            model=self.model.name,
            entry=self.entry.name,
            problems=self.problems,
            method=f"log-likelihood, {thinking}",
            prompt=f"{context.name} ({context.date})",
            extractor="",
            identity=self.model.identity,
            scores=scores,
            tokens=float(each("tokens").mean()),
            answers=answers,
        )

    def _answer(self, problem: Problem, record: Mapping[str, Any]) -> Answer:
        letter = self.scoring.chosen(problem, record["logprobs"])
        return Answer(
            text="",
            answer=letter,
            correct=letter == problem.gold,
            complies=True,
            truncated=1 - float(np.mean(record.get("closed", [True]))),
            tokens=float(np.mean(record.get("tokens", [0]))),
        )

    @functools.cached_property
    def _questions(self) -> Mapping[str, Question]:
        return {problem.id: self._question(problem) for problem in self.problems.problems}

    def _question(self, problem: Problem) -> Question:
        """Return the ids of a context and of its options.

        They are encoded together and cut where the context ends, as lm-evaluation-harness does. A
        space at the end of the context belongs to the options.
        """
        tokenizer = self.model.tokenizer
        text = self.scoring.context.fill(problem, self.examples)
        context = tokenizer.encode(text.rstrip())
        rest = text[len(text.rstrip()) :]
        whole = [
            tokenizer.encode(text.rstrip() + rest + option)
            for option in self.scoring.options(problem)
        ]
        options = tuple(tuple(ids[len(context) :]) for ids in whole)
        return Question((*tokenizer.bos, *context), options)
