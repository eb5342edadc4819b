"""GSM8K (arXiv 2110.14168): problems in words, with their solutions as thoughts, without its `<<…>>`."""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from configs.real.problems import Problem

_CALCULATION = re.compile(r"<<[^>]*>>")
_ANSWER = re.compile(r"\s*####\s*(-?[\d,.]+)\s*$")


def read(path: Path, seed: int) -> list[Problem]:
    """Return the problems of train.jsonl or test.jsonl in a random order.

    Raises:
      ValueError: A row is not one of GSM8K.
    """
    problems = list(_rows(path))
    random.Random(f"grade school {seed}").shuffle(problems)
    return problems


def _rows(path: Path) -> Iterator[Problem]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            row = json.loads(line)
            if not (isinstance(row, dict) and {"question", "answer"} <= set(row)):
                raise ValueError(f"line {number} has no question and answer")
            if not (found := _ANSWER.search(row["answer"])):
                raise ValueError(f"the answer of line {number} does not end with #### and a number")
            solution = _CALCULATION.sub("", row["answer"][: found.start()]).strip()
            yield Problem(row["question"].strip(), solution, found[1].replace(",", ""))
