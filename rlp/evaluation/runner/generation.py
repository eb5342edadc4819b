"""Tasks whose answers are read from generated text.

problem → prompt → ids → response → file → verdict → scores
"""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlp.answers.verifiers import Tags
from rlp.evaluation import benchmarks
from rlp.evaluation.benchmarks.benchmark import Extractor, Problem, Prompt
from rlp.evaluation.benchmarks.grading import ResponseGrader, Verdict
from rlp.evaluation.benchmarks.metrics import score
from rlp.evaluation.generation import requests
from rlp.evaluation.generation.generator import Request, Response, Sampling
from rlp.evaluation.runner.answer_file import Key
from rlp.evaluation.runner.result import Answer, Result
from rlp.evaluation.runner.task import Add, Records, Task, identity, seed_of, texts_of
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import THINK_CLOSE, THINK_OPEN

LENGTH = "length"  # `Response.finish` of a response that was cut off


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class GenerationTask(Task):
    """A task whose answers are read from generated text.

    Attributes:
      prompt: the prompt.
      extractor: name of the extractor.
      think: responses begin with the opening thinking tag.
      top_k: of the samples; 0 for no limit.
      max_tokens: most tokens of a response.
      fixed: the limit was chosen by the user, so it is not lowered for a model that reads less.
    """

    prompt: Prompt
    extractor: str
    think: bool
    top_k: int
    max_tokens: int
    fixed: bool

    @property
    def runs(self) -> int:
        """Number of responses to each problem."""
        return self.entry.runs

    @property
    def sampling(self) -> Sampling:
        """How the responses are sampled."""
        return Sampling(self.entry.temperature, self.entry.top_p, self.top_k)

    @property
    def private(self) -> bool:
        """Whether no text of the task is written."""
        return self.problems.benchmark.private

    def facts(self) -> dict[str, Any]:
        """See `Task`."""
        facts: dict[str, Any] = {
            "task": self.problems.benchmark.name,
            "model": self.model.identity,
            "prompt": self.prompt.name,
            "prompt_date": self.prompt.date,
            "think": self.think,
            "max_tokens": self.max_tokens,
        }
        if self.entry.temperature:
            facts |= {"sampling": dataclasses.asdict(self.sampling), "seed": self.seed}
        if self.private:  # its responses are graded at once
            facts["extractor"] = self._chosen_extractor.name
        return facts

    def identities(self) -> dict[str, str]:
        """See `Task`."""
        code = benchmarks.code_of(self.entry.spec) if self.private else None
        digest = hashlib.sha256(Path(code).read_bytes()).hexdigest() if code else ""
        found = {}
        for problem in self.problems.problems:
            request = dataclasses.replace(self._request(problem, 0), seed=0)
            graded = (problem.gold, digest) if self.private else ()
            found[problem.id] = identity(request, *graded)
        return found

    def wording(self) -> tuple[str, ...]:
        """See `Task`."""
        extractor = self._chosen_extractor
        return (*texts_of(self.prompt), extractor.name, extractor.date)

    def check(self) -> None:
        """See `Task`."""
        if self.think and self.prompt.chat and self.model.opens_thought:
            raise UserError(
                f"the chat template of {self.model.name} opens a thought itself; "
                f"{self.cures.no_think}"
            )
        generator = self.model.generator
        for problem in self.problems.problems:
            request = self._request(problem, 0)
            with self.naming(problem.id):
                requests.check(request, generator.model.vocab_size, generator.context)

    def run(self, finished: Sequence[Key], add: Add) -> None:
        """See `Task`."""
        known = set(finished)
        missing = [
            (problem, run)
            for problem in self.problems.problems
            for run in range(self.runs)
            if (problem.id, run) not in known
        ]
        asked = [self._request(problem, run) for problem, run in missing]

        def done(number: int, response: Response) -> None:
            problem, run = missing[number]
            add(problem.id, run, self._record(problem, response))

        if asked:
            self.model.generator.generate(asked, done)

    def result(self, records: Records) -> Result:
        """See `Task`."""
        rows = [
            [records[problem.id, run] for run in range(self.runs)]
            for problem in self.problems.problems
        ]
        verdicts = self._verdicts(rows)
        each = lambda name: np.array([[getattr(v, name) for v in row] for row in verdicts])
        truncated = np.array([[r["finish"] == LENGTH for r in row] for row in rows])
        scores = score(
            each("correct"),
            [[verdict.answer for verdict in row] for row in verdicts],
            each("complies"),
            truncated,
            each("failed"),
        )
        return Result(
            model=self.model.name,
            entry=self.entry.name,
            problems=self.problems,
            method=f"generated, {'thinking' if self._thinks else 'no thought'}",
            prompt=f"{self.prompt.name} ({self.prompt.date})",
            extractor=f"{self._chosen_extractor.name} ({self._chosen_extractor.date})",
            identity=self.model.identity,
            scores=scores,
            tokens=float(np.mean([[r["tokens"] for r in row] for row in rows])),
            answers=[
                [
                    Answer(
                        record.get("text", ""),
                        verdict.answer,
                        verdict.correct,
                        verdict.complies,
                        record["finish"] == LENGTH,
                        record["tokens"],
                    )
                    for record, verdict in zip(row, row_verdicts, strict=True)
                ]
                for row, row_verdicts in zip(rows, verdicts, strict=True)
            ],
        )

    @property
    def _chosen_extractor(self) -> Extractor:
        return self.problems.benchmark.extractor(self.extractor, self.prompt)

    @functools.cached_property
    def _thinks(self) -> bool:
        """Whether responses begin inside a thought."""
        return self.model.begins_in_thought(next(iter(self._ids.values())))

    @functools.cached_property
    def _ids(self) -> Mapping[str, tuple[int, ...]]:
        """The ids of every prompt, by the id of its problem."""
        return {
            problem.id: self.model.prompt_ids(
                self.prompt.fill(problem, self.examples), self.prompt.chat, self.think
            )
            for problem in self.problems.problems
        }

    def _request(self, problem: Problem, run: int) -> Request:
        ids = self._ids[problem.id]
        room, longest = self.max_tokens, self.model.longest
        if longest and len(ids) + room > longest:
            if self.fixed or len(ids) >= longest:
                fits = len(ids) < longest
                cure = self.cures.fewer_tokens if fits else "choose a shorter prompt"
                raise UserError(
                    f"{self.entry.task}, problem {problem.id}: its prompt of {len(ids):,} tokens "
                    f"and a response of {room:,} exceed the {longest:,} tokens that "
                    f"{self.model.name} reads; {cure}"
                )
            room = longest - len(ids)
        return Request(
            prompt=ids,
            max_tokens=room,
            sampling=self.sampling,
            seed=seed_of(self.seed, self.problems.benchmark.name, problem.id, run),
            stop=self.prompt.stop,
            ends=self.model.chat_ends if self.prompt.chat else self.model.ends,
        )

    def _record(self, problem: Problem, response: Response) -> dict[str, Any]:
        record: dict[str, Any] = {"finish": response.finish, "tokens": len(response.tokens)}
        if self.private:
            verdict = self._grader.grade([problem], [response.text])[0]
            return record | dataclasses.asdict(verdict)
        return record | {"text": response.text}

    def _verdicts(self, records: Sequence[Sequence[Mapping[str, Any]]]) -> list[list[Verdict]]:
        if self.private:
            names = [field.name for field in dataclasses.fields(Verdict)]
            return [[Verdict(**{name: r[name] for name in names}) for r in row] for row in records]
        problems = [problem for problem in self.problems.problems for _ in range(self.runs)]
        texts = [record["text"] for row in records for record in row]
        verdicts = iter(self._grader.grade(problems, texts))
        return [[next(verdicts) for _ in row] for row in records]

    @functools.cached_property
    def _grader(self) -> ResponseGrader:
        tags = Tags(THINK_OPEN, THINK_CLOSE, self._thinks)
        return ResponseGrader(self.entry.spec, self.prompt.name, self.extractor, tags)
