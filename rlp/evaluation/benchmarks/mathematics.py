r"""Prompts and few-shot examples of the mathematical benchmarks.

The prompts named "skills" are those of NVIDIA/NeMo-Skills at commit 0b012df (14 November 2025,
Apache 2.0), under `nemo_skills/prompt/config/generic`: `math.yaml` and `math-base.yaml`. Its
few-shot examples are published problems; those here were written for this project.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from rlp.evaluation.benchmarks.benchmark import Example, Problem, Prompt
from rlp.evaluation.benchmarks.extractors import final_answer, last_box

_SKILLS = "NVIDIA/NeMo-Skills@0b012df nemo_skills/prompt/config/generic"
_OURS = "this project"
_GAP = "\n" * 6
_PREFIX = (
    "Here are some examples of questions and solutions followed by a new question that you need to "
    "solve. Make sure to put the answer (and only answer) inside \\boxed{}.\n\n"
)
_UNBOXED = (
    "Here are some problems and solutions, followed by a new problem. Each solution ends with "
    '"The final answer is".\n\n'
)
# Without these, a base model goes on to pose and solve the next problem.
_STOP = (_GAP, "\n\nProblem:\n")


def has_box(response: str) -> bool:
    """Return whether a response ends with an answer in a box, as asked for."""
    return bool((last_box(response) or "").strip())


def has_final_answer(response: str) -> bool:
    """Return whether the last line of a response has the form that is asked for."""
    return bool((final_answer(response) or "").strip())


def mathematics_prompts(examples: Sequence[Example], shots: int = 4) -> tuple[Prompt, ...]:
    """Return the prompts of a mathematical benchmark.

    Args:
      examples: solved problems for the prompts of base models.
      shots: number of examples in such a prompt.
    """
    chat = Prompt(
        name="skills-math",
        date="2025-10",
        source=f"{_SKILLS}/math.yaml",
        text="Solve the following math problem. Make sure to put the answer (and only answer) "
        "inside \\boxed{}.\n\n{problem}",
        complies=has_box,
    )
    return (
        chat,
        Prompt(
            name="final-answer",
            date="2026-11",
            source=_OURS,
            text="Solve the following math problem. The last line of your response should be in "
            "the following format: 'The final answer is ANSWER' (e.g. 'The final answer is 12')."
            "\n\n{problem}",
            extractor="skills-final-answer",
            complies=has_final_answer,
        ),
        Prompt(
            name="skills-math-base",
            date="2025-10",
            source=f"{_SKILLS}/math-base.yaml, with examples and stops of this project",
            text="{examples}{problem}\n\nSolution:\n",
            chat=False,
            complies=has_box,
            examples=_always(examples),
            shots=shots,
            example="Problem:\n{problem}\n\nSolution:\n{solution} The answer is \\boxed{{answer}}."
            + _GAP,
            before_examples=_PREFIX,
            after_examples="Problem:\n",
            stop=_STOP,
        ),
        Prompt(
            name="final-answer-base",
            date="2026-11",
            source=_OURS,
            text="{examples}{problem}\n\nSolution:\n",
            chat=False,
            extractor="skills-final-answer",
            complies=has_final_answer,
            examples=_always(examples),
            shots=shots,
            example="Problem:\n{problem}\n\nSolution:\n{solution}\nThe final answer is {answer}"
            + _GAP,
            before_examples=_UNBOXED,
            after_examples="Problem:\n",
            stop=_STOP,
        ),
        Prompt(
            name="skills-math-base-zero-shot",
            date="2025-10",
            source=f"{_SKILLS}/math-base.yaml, with stops of this project",
            text="{problem}\n\nSolution:\n",
            chat=False,
            complies=has_box,
            stop=_STOP,
        ),
        dataclasses.replace(chat, name="skills-math-zero-shot", chat=False),
    )


def _always(examples: Sequence[Example]) -> Callable[[Path], Sequence[Example]]:
    return lambda folder: examples


def _solved(name: str, question: str, solution: str, answer: str) -> Example:
    return Example(Problem(name, question, answer), solution)


WORD_PROBLEMS = (
    _solved(
        "bakery",
        "A bakery sells 14 loaves in the morning and twice as many in the afternoon. A loaf costs "
        "$3. How much money does the bakery take in that day?",
        "In the afternoon the bakery sells 2 * 14 = 28 loaves. Over the day it sells 14 + 28 = 42 "
        "loaves. They bring in 42 * 3 = 126 dollars.",
        "126",
    ),
    _solved(
        "shelf",
        "Mira has 5 shelves with 18 books each. She gives a third of all her books to a school. "
        "How many books does she have left?",
        "Mira has 5 * 18 = 90 books. She gives away 90 / 3 = 30 of them. So 90 - 30 = 60 are left.",
        "60",
    ),
    _solved(
        "train",
        "A train covers 240 kilometres in 3 hours. At the same speed, how many kilometres does it "
        "cover in 5 hours?",
        "The train covers 240 / 3 = 80 kilometres in an hour. In 5 hours it covers 5 * 80 = 400 "
        "kilometres.",
        "400",
    ),
    _solved(
        "savings",
        "Tom has saved $75. Each week he earns $20 and spends $8. After how many weeks can he buy "
        "a bicycle for $171?",
        "Tom needs 171 - 75 = 96 dollars more. Each week he saves 20 - 8 = 12 dollars. So he needs "
        "96 / 12 = 8 weeks.",
        "8",
    ),
)

COMPETITION_PROBLEMS = (
    _solved(
        "roots",
        "Let $r$ and $s$ be the roots of $x^2 - 7x + 3 = 0$. Find $r^2 + s^2$.",
        "The coefficients give $r + s = 7$ and $rs = 3$. Hence $r^2 + s^2 = (r + s)^2 - 2rs = 49 - "
        "6 = 43$.",
        "43",
    ),
    _solved(
        "dice",
        "Two fair dice are rolled. What is the probability that the sum is at most $4$? Express "
        "your answer as a common fraction.",
        "The rolls with a sum of $2$, $3$ and $4$ number $1 + 2 + 3 = 6$ of the $36$ equally "
        "likely ones. The probability is $\\frac{6}{36} = \\frac{1}{6}$.",
        "\\frac{1}{6}",
    ),
    _solved(
        "interval",
        "For which real $x$ is $x^2 - 5x + 4 < 0$? Give your answer as an interval.",
        "The polynomial factors as $(x - 1)(x - 4)$, which is negative exactly between its roots.",
        "(1,4)",
    ),
    _solved(
        "remainder",
        "Find the remainder when $3^{20}$ is divided by $7$.",
        "Powers of $3$ repeat modulo $7$ with period $6$, because $3^6 = 729 = 7 \\cdot 104 + 1$. "
        "Since $20 = 3 \\cdot 6 + 2$, the remainder is that of $3^2 = 9$, which is $2$.",
        "2",
    ),
)
