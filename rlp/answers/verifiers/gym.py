"""Problems that reasoning-gym generates, by name, and the scores of its verifiers.

    reasoning_gym:chain_sum?max_terms=4&size=2000&seed=1  →  entries 0 … 1999: question, answer

reasoning-gym (arXiv 2505.24760, Apache 2.0) is an optional package. An entry is a function of the
name and its number k: the library draws it with seed + k. So two names of one dataset have entries
in common if their seeds differ by less than their sizes.

A gold answer has the form "12 (reasoning_gym:chain_sum?seed=1&size=2000#5 0f3a…)": the answer, and
the name, number and digest of the entry, which a worker process generates again to score with.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Self
from urllib.parse import quote, unquote

from rlp.answers.verifiers.markup import boxes
from rlp.answers.verifiers.responses import answer_region
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import parse

PREFIX = "reasoning_gym:"
INSTALL = "pip install -r requirements-gym.txt"
# Their scorers pass responses to Python's eval (also inside sympy), so a model could run code.
EVALUATING = (
    *("binary_matrix", "countdown", "intermediate_integration", "n_queens"),
    *("polynomial_multiplication", "puzzle24", "simple_integration", "spiral_matrix"),
    "string_insertion",
)
# They draw from sets, whose order differs between processes, or (list_functions) from the state of
# Python's generator, which differs between two calls.
UNSTABLE = (
    *("isomorphic_strings", "knight_swap", "list_functions", "polynomial_multiplication"),
    *("ransom_note", "word_ladder"),
)
UNUSABLE = dict.fromkeys(UNSTABLE, "does not generate the same entries every time") | {
    "codeio": "runs programs that its data contain",
    "composite": "only combines others, which a list separated by commas does too",
}
_IN_LIST = re.compile(rf"(?:^|,)\s*({PREFIX}(?:[^,\[]|\[[^\]]*\])*)")
_GOLD = re.compile(rf"(.*) \(({PREFIX}\S+)#([0-9]+) ([0-9a-f]+)\)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Name:
    """The name of a dataset with its options, which determine its entries.

    Attributes:
      dataset: name in reasoning-gym.
      options: names and JSON values of the options, in the order of their names, with `seed` (0 if
        the name has none) and `size` (500).
    """

    dataset: str
    options: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str, field: str) -> Self:
        """Parse a name that a config field contains.

        Raises:
          UserError: If an option has no value, or seed or size is not a number.
        """
        dataset, _, query = text.removeprefix(PREFIX).partition("?")
        options: dict[str, Any] = {"seed": 0, "size": 500}
        for part in query.split("&") if query else []:
            option, equals, value = part.partition("=")
            if not equals:
                raise UserError.of(field, text, f"has no value for {part!r}; write {part}=<value>")
            options[option] = _value(unquote(value))
        for option, lowest in (("seed", 0), ("size", 1)):
            value = options[option]
            if type(value) is not int or value < lowest:
                raise UserError.of(field, text, f"; {option} must be an integer from {lowest} on")
        written = [(option, json.dumps(value)) for option, value in sorted(options.items())]
        return cls(dataset, tuple(written))

    def __str__(self) -> str:
        options = "&".join(f"{name}={quote(value)}" for name, value in self.options)
        return f"{PREFIX}{self.dataset}?{options}"

    @property
    def values(self) -> dict[str, Any]:
        """The options with their values."""
        return {name: parse(value) for name, value in self.options}


class Answer(str):
    """The answer of an entry.

    Attributes:
      entry: name, number and digest of the entry, as a gold answer has them.
      dataset: name of the dataset.
    """

    entry: str
    dataset: str


def split(spec: str) -> tuple[list[str], str]:
    """Split a comma-separated list into names of generated datasets and the rest. Commas inside
    brackets, as in `operators=["+","-"]`, belong to a name."""
    return [name.strip() for name in _IN_LIST.findall(spec)], _IN_LIST.sub("", spec).strip(", ")


def entries(name: Name, field: str) -> Iterator[tuple[str, Answer]]:
    """Yield question and answer of each entry; the answer is empty if there is only a scorer.

    Args:
      name: the dataset.
      field: config field that names it, for messages.

    Raises:
      UserError: If the package is not installed, or the dataset or an option does not exist.
    """
    _check(name, field)
    try:
        dataset = _dataset(str(name))
    except Exception as error:  # noqa: BLE001  the library asserts, or fails at a wrong type
        reason = " ".join(f"{error}".split()) or type(error).__name__
        raise UserError.of(field, str(name), f"is refused by reasoning-gym: {reason}") from error
    for number in range(len(dataset)):
        entry = dataset[number]
        answer = Answer(entry["answer"] or "")
        answer.entry = f"{name}#{number} {_digest(entry)}"
        answer.dataset = name.dataset
        yield entry["question"], answer


def check_apart(
    train: Sequence[Name], evaluation: Sequence[Name], train_field: str, field: str
) -> None:
    """Raise UserError if an entry that is trained on may also be evaluated.

    Args:
      train, evaluation: the datasets.
      train_field, field: config fields that name them, for messages.
    """
    for one in train:
        for other in evaluation:
            first, second = one.values, other.values
            apart = max(first["seed"], second["seed"]) >= min(
                values["seed"] + values["size"] for values in (first, second)
            )
            if one.dataset == other.dataset and not apart:
                raise UserError.of(
                    field,
                    str(other),
                    f"has entries that {one} in {train_field} may have too, since entry k is drawn "
                    f"with seed + k; set its seed to {first['seed'] + first['size']} or more",
                )


def gold(answer: object, options: Sequence[str] | None) -> str:
    """Return the gold answer of an entry; the `gold` of the verifier.

    Raises:
      UserError: If the answer is not that of an entry, or its scorer would run a response.
    """
    if not isinstance(answer, Answer):
        raise UserError(
            'is not from reasoning_gym, so it has no scorer; set data.problems.verifier to "math", '
            "which compares answers of both"
        )
    if answer.dataset in EVALUATING:
        raise UserError(
            f"of {answer.dataset} has a scorer that evaluates responses as Python, so a model "
            'could run code; set data.problems.verifier to "math" or "exact"'
        )
    return f"{answer} ({answer.entry})"


def score(response: str, answer: str) -> float:
    r"""Return the score of a response, from 0 to 1; the `score` of the verifier.

    The scorer reads the last \boxed{…}; without a box, all of the text in <answer>…</answer>, or of
    the response.

    Raises:
      ValueError: If the entry of the gold answer is another one in this process.
    """
    match = _GOLD.fullmatch(answer)
    if match is None:
        raise ValueError(f"{answer[:40]!r} names no entry of reasoning-gym")
    _, name, number, digest = match.groups()
    dataset = _dataset(name)
    entry = dataset[int(number)]
    if _digest(entry) != digest:
        raise ValueError(f"entry {number} of {name} is not the same in every process")
    text = answer_region(response)
    if found := boxes(text):
        text = found[-1][2]
    return float(dataset.score_answer(text.strip(), entry))


def prepare() -> None:
    """Import the library."""
    import reasoning_gym  # noqa: F401


@functools.lru_cache(maxsize=32)
def _dataset(name: str) -> Any:
    """Return the dataset of a name."""
    from reasoning_gym.factory import create_dataset

    parsed = Name.parse(name, "")
    return create_dataset(parsed.dataset, **parsed.values)


def _check(name: Name, field: str) -> None:
    """Raise UserError if a name cannot be that of a dataset."""
    text = str(name)
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise UserError.of(
            field, text, f"needs the package reasoning-gym; install it with: {INSTALL}"
        ) from error
    if name.dataset not in DATASETS:
        raise UserError.of(field, text, f"is unknown; {_nearest(name.dataset, DATASETS)}")
    if name.dataset in UNUSABLE:
        raise UserError.of(field, text, f"{UNUSABLE[name.dataset]}; use another dataset")
    known = {option.name: option for option in dataclasses.fields(DATASETS[name.dataset][1])}
    for option, value in name.values.items():
        if option not in known:
            raise UserError.of(field, text, f"has no option {option}; {_nearest(option, known)}")
        default = known[option].default
        if type(default) in (bool, int) and type(value) is not type(default):
            kind = type(default).__name__
            raise UserError.of(field, text, f"; {option} must be {kind}, as its default {default}")


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.6)
    return f"did you mean {near[0]}?" if near else f"use one of {', '.join(sorted(known))}"


def _digest(entry: Any) -> str:
    content = json.dumps([entry["question"], entry["answer"]])
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def _value(text: str) -> Any:
    """Return the JSON value of a text, or the text itself if it is not JSON."""
    try:
        return parse(text)
    except ValueError:
        return text
