"""Which problems of task files occur in a text corpus, as a report in JSON and as a table.

The corpus is streamed: only the n-grams of the problems are held, and for each problem the number
of documents with an overlap and the locations of the first few.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlp.data.bounds import LIMITS, Limits
from rlp.data.corpus import reading
from rlp.data.file_list import find_files
from rlp.data.overlap import KINDS, SIZE, Overlaps
from rlp.data.sources import read_documents
from rlp.data.summary import Summary
from rlp.data.task_files import TASK_ENDINGS, read_problems
from rlp.runtime.display import printable

SHOWN = 10  # documents that are kept for a problem, and examples in a row of the table
Report = dict[str, Any]  # see `examine`
KIND = "overlaps of training text with task files"
MARK = f'"kind": "{KIND}"'  # begins every report


@dataclasses.dataclass
class _Found:
    """The documents that overlap with a problem: their number, and the locations of the first."""

    documents: int = 0
    first: list[str] = dataclasses.field(default_factory=list)

    def add(self, where: str) -> None:
        self.documents += 1
        if self.documents <= SHOWN:
            self.first.append(where)


def examine(
    text: str,
    tasks: str,
    *,
    text_column: str = "text",
    txt_separator: str = "",
    columns: Sequence[str] = (),
    limits: Limits = LIMITS,
) -> Report:
    """Compare a corpus with task files.

    Args:
      text: files, folders or globs, separated by commas.
      tasks: task files in the same form, with an ending of `TASK_ENDINGS`.
      text_column: column of a JSON line or parquet row that contains the document.
      txt_separator: splits .txt files into documents; "" does not split them.
      columns: columns of the task files to compare; empty for all texts in a row.
      limits: limits on rows and decompression.

    Returns:
      A JSON object:
        "kind": `KIND`; "size": tokens of an n-gram;
        "text": "files", "documents" and "characters", and in "overlapping" the number of documents
          that overlap with any problem, by kind;
        "tasks": for each file its path and number of "problems", and for each kind in "overlaps"
          the number of problems with an overlap, of those that are too short to have one, and in
          "found" the problems themselves: number of the row from 0, number of documents, and the
          locations of the first of them.

    Raises:
      UserError: If a file cannot be read.
    """
    text_files = find_files(text, "--text")
    task_files = find_files(tasks, "--tasks", TASK_ENDINGS)
    counts: list[int] = []

    def problems() -> Iterator[list[str]]:
        with reading(task_files, "--tasks") as bar:
            for file in task_files:
                counts.append(0)
                for texts in read_problems(file, columns, bar.update, limits):
                    counts[-1] += 1
                    yield texts

    overlaps = Overlaps(problems())
    summary = Summary("--text", text_files, 1.0, "documents")
    found: dict[str, dict[int, _Found]] = {kind: {} for kind in KINDS}
    overlapping = dict.fromkeys(KINDS, 0)
    with reading(text_files, "--text") as bar:
        for document in read_documents(
            summary, text_column, txt_separator, bar.update, limits, "--text_column"
        ):
            for kind, numbers in overlaps.find(document).items():
                overlapping[kind] += 1
                for number in numbers.tolist():
                    found[kind].setdefault(number, _Found()).add(summary.latest)
    summary.finish(txt_separator)
    return {
        "kind": KIND,
        "size": SIZE,
        "text": {
            "files": list(text_files),
            "documents": sum(summary.text_counts.values()),
            "characters": summary.characters,
            "overlapping": overlapping,
        },
        "tasks": _tasks(task_files, counts, overlaps, found),
    }


def _tasks(
    files: Sequence[str],
    counts: Sequence[int],
    overlaps: Overlaps,
    found: Mapping[str, Mapping[int, _Found]],
) -> list[Report]:
    """Return the part of a report about each task file; `counts` are their problems."""
    tasks, first = [], 0
    for file, count in zip(files, counts, strict=True):
        here = range(first, first + count)
        by_kind = {}
        for kind, problems in found.items():
            comparable = sum(number in here for number in overlaps.comparable(kind).tolist())
            hits = [
                {"problem": n - first, **dataclasses.asdict(problems[n])}
                for n in here
                if n in problems
            ]
            by_kind[kind] = {
                "problems": len(hits),
                "too_short": count - comparable,
                "found": hits,
            }
        tasks.append({"file": file, "problems": count, "overlaps": by_kind})
        first += count
    return tasks


def table(report: Report) -> str:
    """Format a report as aligned text for a terminal: a line per task file and kind of overlap."""
    heads = ["task file", "overlap of", "problems", "found", "share", "too short", "rows"]
    lines = [heads]
    for task in report["tasks"]:
        for kind, overlap in task["overlaps"].items():
            examples = [str(hit["problem"]) for hit in overlap["found"][:SHOWN]]
            more = ["…"] if len(overlap["found"]) > SHOWN else []
            lines.append(
                [
                    *(
                        printable(task["file"]),
                        kind,
                        f"{task['problems']:,}",
                        f"{overlap['problems']:,}",
                    ),
                    f"{overlap['problems'] / task['problems']:.1%}",
                    f"{overlap['too_short']:,}",
                    " ".join([*examples, *more]) or "-",
                ]
            )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [
        [
            cell.ljust(width) if head in ("task file", "overlap of", "rows") else cell.rjust(width)
            for head, cell, width in zip(heads, line, widths, strict=True)
        ]
        for line in lines
    ]
    return "\n".join("  ".join(cells).rstrip() for cells in aligned)


def shown(report: Report, columns: Sequence[str] = ()) -> Iterator[str]:
    """Yield a line with the texts of each problem that was found, whose file is read again."""
    for task in report["tasks"]:
        kinds: dict[int, list[str]] = {}
        for kind, overlap in task["overlaps"].items():
            for hit in overlap["found"]:
                kinds.setdefault(hit["problem"], []).append(kind)
        for number, texts in enumerate(read_problems(task["file"], columns)):
            if number in kinds:
                yield f"{task['file']}, row {number} ({', '.join(kinds[number])}): " + " | ".join(
                    texts
                )
