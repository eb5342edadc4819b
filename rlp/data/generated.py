"""Generated datasets among the files of a config field: `a.jsonl,reasoning_gym:chain_sum?size=99`.

A list that names several of them is a mixture with their sizes as weights, as it is for files.
"""

from collections.abc import Iterator, Sequence

import tqdm

from rlp.answers.verifiers import gym
from rlp.answers.verifiers.gym import Answer, Name
from rlp.data.file_list import find_files
from rlp.data.overlap import Overlaps
from rlp.data.summary import Files, Summary

ANSWER = "\nAnswer: "  # between question and answer in a document; `data.fork_marker` finds it


def sources(spec: str, field: str) -> tuple[Files, list[Name]]:
    """Return the files and the generated datasets of a comma-separated list. A dataset that is
    listed twice counts once.

    Raises:
      UserError: If `find_files` raises it, or a name is malformed.
    """
    names, rest = gym.split(spec)
    files = Files() if names and not rest else find_files(rest if names else spec, field)
    return files, list(dict.fromkeys(Name.parse(name, field) for name in names))


def entries(name: Name, field: str) -> Iterator[tuple[str, Answer]]:
    """Yield the entries of a dataset, see `gym.entries`; show progress if it takes long."""
    total, bar = name.values["size"], f"generating {name.dataset} for {field}"
    yield from tqdm.tqdm(
        gym.entries(name, field), bar, total, unit=" entries", delay=1, disable=None
    )


def documents(
    names: Sequence[Name], summary: Summary, exclude: Overlaps | None = None
) -> Iterator[str]:
    """Yield each entry as a document: question, `ANSWER` and answer.

    Args:
      names: the datasets.
      summary: counts the documents, and the entries without an answer as unusable.
      exclude: leaves out the documents that overlap with these problems; None for none.

    Raises:
      UserError: If `gym.entries` raises it.
    """
    for name in names:
        for number, (question, answer) in enumerate(entries(name, summary.field)):
            where, text = f"{name}, entry {number}", f"{question}{ANSWER}{answer}"
            if not answer:
                summary.unusable.count(f"{where}: has no answer, only a scorer")
                continue
            summary.unusable.count()
            if exclude is not None and exclude.find(text):
                summary.overlapping += 1
            else:
                summary.count(str(name), len(text), where)
                yield text
