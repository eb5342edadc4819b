"""Find problems of task files in training text.

    python -m launch.contamination --text=texts/ --tasks=gsm8k/test.jsonl,mmlu.csv --out=found.json

A problem is found if a document shares 13 tokens in a row with one of its texts. The table has a
line for each task file and kind of overlap (`rlp.data.overlap`): words, numbers (copies, with their
numbers) and templates (the same with other numbers). `found` counts problems, `too short` those
without 13 tokens in a row, which cannot be found, and `rows` names the first ones, counted from 0.
The texts of problems appear only with --show. To train without such documents, set
--config.data.exclude_overlaps.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from launch import program
from rlp.runtime import atomic_files, disk_errors
from rlp.runtime.display import printable

_TEXT = flags.DEFINE_string(
    "text", None, "training text, as in data.train: files, folders or globs", required=True
)
_TASKS = flags.DEFINE_string(
    "tasks",
    None,
    "files of problems (.jsonl, .ndjson, .parquet, .csv), folders or globs",
    required=True,
)
_OUT = program.define_output("out", "JSON file to write")
_COLUMNS = flags.DEFINE_list(
    "columns", [], "columns of the task files to compare; all texts of a row by default"
)
_TEXT_COLUMN = flags.DEFINE_string("text_column", "text", "as in data.text_column")
_TXT_SEPARATOR = flags.DEFINE_string("txt_separator", "", "as in data.txt_separator")
_SHOW = flags.DEFINE_bool("show", False, "print the texts of the problems that were found")


def main(_: Sequence[str]) -> None:
    """Compare a corpus with task files; write the report and print its table."""
    from rlp.data import contamination

    out = Path(_OUT.value)
    disk_errors.refuse_other(out, contamination.MARK)
    disk_errors.refuse_unwritable(out.parent)
    report = contamination.examine(
        _TEXT.value,
        _TASKS.value,
        text_column=_TEXT_COLUMN.value,
        txt_separator=_TXT_SEPARATOR.value,
        columns=_COLUMNS.value,
    )
    with disk_errors.writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write_whole(out, json.dumps(report, indent=1))
    text = report["text"]
    print(f"{text['documents']:,} documents with {text['characters']:,} characters")
    print(contamination.table(report))
    if _SHOW.value:
        for line in contamination.shown(report, _COLUMNS.value):
            print(printable(line))
    print(f"\nreport: {printable(str(out))}")


if __name__ == "__main__":
    program.run(main)
