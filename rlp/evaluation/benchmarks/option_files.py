"""Benchmarks that are scored by log-likelihood alone: ARC and HellaSwag."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlp.evaluation.benchmarks.benchmark import LETTERS, Benchmark, Problem
from rlp.evaluation.benchmarks.choices import text_scoring
from rlp.evaluation.benchmarks.files import Row, read_table
from rlp.runtime.errors import UserError

_BRACKETS = re.compile(r"\[.*?\]")


def arc_problems(path: Path) -> Iterator[Problem]:
    """Yield the problems of a file of ARC.

    The `question` of a row is a text next to `choices` with lists of `text` and `label`, as on the
    hub, or contains `stem` and a list of `choices`, as in the original files. `answerKey` is one of
    the labels, which are letters or numbers.
    """
    columns = {"id": ("id",), "question": ("question",), "answer": ("answerKey",)}
    for row in read_table(path, columns | {"choices": ("choices", "question")}):
        labels, texts = _labelled(row)
        answer = row.answer("answer")
        if answer not in labels:
            raise UserError(f"{row.where}: answerKey {answer!r} is not one of the labels {labels}")
        question = row.values["question"]
        stem = question.get("stem") if isinstance(question, dict) else row.text("question")
        yield Problem(row.text("id"), str(stem), LETTERS[labels.index(answer)], tuple(texts))


def _labelled(row: Row) -> tuple[list[str], list[str]]:
    """Return the labels and the texts of the options of a row."""
    choices: Any = row.values["choices"]
    try:
        if "choices" in choices:
            choices = choices["choices"]
            return [x["label"] for x in choices], [x["text"] for x in choices]
        return list(choices["label"]), list(choices["text"])
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{row.where}: the options need 'text' and 'label', as in the files of ARC"
        ) from error


def hellaswag_problems(path: Path) -> Iterator[Problem]:
    """Yield the problems of a file of HellaSwag, with texts cleaned as in lm-evaluation-harness."""
    names = ("activity_label", "ctx_a", "ctx_b", "endings", "label")
    for number, row in enumerate(read_table(path, {name: (name,) for name in names})):
        endings = tuple(map(_clean, row.texts("endings")))
        context = f"{row.text('activity_label')}: {row.text('ctx_a')} "
        context = _clean(context + str(row.values["ctx_b"]).capitalize())
        gold = LETTERS[row.choice("label", len(endings))]
        yield Problem(str(number), context, gold, endings)


def _clean(text: str) -> str:
    text = _BRACKETS.sub("", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _arc(name: str, title: str, size: int) -> Benchmark:
    return Benchmark(
        name=name,
        title=title,
        group="science",
        size=size,
        file=f"{name}/test",
        source="huggingface.co/datasets/allenai/ai2_arc",
        licence="CC BY-SA 4.0",
        read=arc_problems,
        metric="log-likelihood per character",
        options=(text_scoring(name, "Question: {problem}\nAnswer:"),),
    )


ARC_EASY = _arc("arc_easy", "ARC Easy", 2376)
ARC_CHALLENGE = _arc("arc_challenge", "ARC Challenge", 1172)
HELLASWAG = Benchmark(
    name="hellaswag",
    title="HellaSwag",
    group="commonsense",
    size=10_042,
    file="hellaswag/validation",
    source="huggingface.co/datasets/Rowan/hellaswag, or hellaswag_val.jsonl of its repository",
    licence="MIT",
    read=hellaswag_problems,
    metric="log-likelihood per character",
    options=(text_scoring("hellaswag", "{problem}"),),
)
