"""Benchmarks of problems that reasoning-gym generates: no file has them, so no model has seen them.

    reasoning_gym:chain_sum?max_terms=4&size=200&seed=7  →  200 problems, each with its scorer

A response is correct if the scorer of its problem gives its answer 1. The examples of few-shot
prompts are the first entries after the last problem whose questions are not among the problems.
"""

import functools
from collections.abc import Iterator, Sequence

from rlp.answers.verifiers import gym
from rlp.answers.verifiers.gym import Answer, Name
from rlp.data import generated
from rlp.evaluation.benchmarks.benchmark import (
    FIELD,
    Benchmark,
    Example,
    Extractor,
    Problem,
    Prompt,
)
from rlp.evaluation.benchmarks.choices import Examples
from rlp.evaluation.benchmarks.extractors import BOXED
from rlp.evaluation.benchmarks.mathematics import has_box
from rlp.runtime.errors import UserError

SHOTS = 4
SOURCE = "github.com/open-thought/reasoning-gym, generated on this machine"
_OPEN, _CLOSE = "<answer>", "</answer>"


def tagged_answer(response: str) -> str | None:
    """Return the text in the last <answer>…</answer>; None if the tags are missing."""
    _, opened, after = response.rpartition(_OPEN)
    answer, closed, _ = after.partition(_CLOSE)
    return answer if opened and closed else None


def has_tags(response: str) -> bool:
    """Return whether a response has an answer between tags, as asked for."""
    return bool((tagged_answer(response) or "").strip())


def has_text(response: str) -> bool:
    """Return whether a response has visible characters."""
    return bool(response.strip())


TAGS = Extractor("gym-tags", "2026-11", tagged_answer, "the text in the last <answer>…</answer>")
WHOLE = Extractor("gym-whole", "2026-11", str.strip, "the whole response")


def solved(response: str, gold: str) -> bool:
    """Return whether the scorer of a problem gives a response the full score."""
    return gym.score(response, gold) >= 1


@functools.lru_cache(maxsize=64)
def benchmark(spec: str) -> Benchmark:
    """Return the benchmark of a generated dataset.

    Args:
      spec: its name, see `rlp.answers.verifiers.gym`.

    Raises:
      UserError: If the name is malformed, or the scorer of the dataset would run a response.
    """
    name = Name.parse(spec, FIELD)
    if name.dataset in gym.EVALUATING:
        raise UserError.of(
            FIELD,
            spec,
            "has a scorer that evaluates responses as Python, so a model could run code; use "
            "another dataset",
        )
    return Benchmark(
        name=str(name),
        title=f"{name.dataset} of reasoning-gym",
        group="reasoning-gym",
        size=name.values["size"],
        file="",
        source=SOURCE,
        licence="Apache 2.0",
        read=lambda folder: _problems(name),
        prompts=_prompts(lambda folder: _examples(name)),
        extractors=(TAGS, BOXED, WHOLE),
        equal=solved,
        metric="pass@1",
        max_tokens=1024,
    )


def _problems(name: Name) -> Iterator[Problem]:
    for number, (question, answer) in enumerate(generated.entries(name, FIELD)):
        yield Problem(str(number), question, gym.gold(answer, None))


def _examples(name: Name) -> Sequence[Example]:
    """Return entries after the last one of a dataset, with answers and with other questions than
    those before.

    Raises:
      UserError: If there are too few of them.
    """
    values = name.values
    after = {"seed": values["seed"] + values["size"], "size": 16 * SHOTS}
    options = {key: value for key, value in name.options if key not in after}
    written = options | {key: str(value) for key, value in after.items()}
    others = Name(name.dataset, tuple(sorted(written.items())))
    asked = {question for question, _ in gym.entries(name, FIELD)}
    found: dict[str, Answer] = {}
    for question, answer in gym.entries(others, FIELD):
        if answer and question not in asked:
            found.setdefault(question, answer)
        if len(found) == SHOTS:
            return [
                Example(Problem(f"example-{number}", question, str(answer)))
                for number, (question, answer) in enumerate(found.items())
            ]
    raise UserError.of(
        FIELD,
        str(name),
        f"has fewer than {SHOTS} other questions with an answer, which the prompt would show; "
        "choose the prompt gym-line-zero-shot",
    )


def _prompts(examples: Examples) -> tuple[Prompt, ...]:
    ours = "this project"
    line = Prompt(
        name="gym-line",
        date="2026-11",
        source=ours,
        text="{examples}{problem}" + generated.ANSWER.rstrip(),
        chat=False,
        extractor=WHOLE.name,
        complies=has_text,
        examples=examples,
        shots=SHOTS,
        example="{problem}" + generated.ANSWER + "{answer}\n\n",
        stop=("\n\n",),
    )
    return (
        Prompt(
            name="gym-tags",
            date="2026-11",
            source=ours,
            text="{problem}\n\nGive your final answer, and only the answer, between <answer> and "
            "</answer>.",
            extractor=TAGS.name,
            complies=has_tags,
        ),
        Prompt(
            name="gym-boxed",
            date="2026-11",
            source=ours,
            text="{problem}\n\nPut your final answer (and only the answer) inside \\boxed{}.",
            extractor=BOXED.name,
            complies=has_box,
        ),
        line,
        Prompt(
            name="gym-line-zero-shot",
            date="2026-11",
            source=ours,
            text="{problem}" + generated.ANSWER.rstrip(),
            chat=False,
            extractor=WHOLE.name,
            complies=has_text,
            stop=line.stop,
        ),
    )
