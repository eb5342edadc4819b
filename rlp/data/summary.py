"""A summary of the files that a config field names, as one log line."""

import collections
import logging
from collections.abc import Iterable, Sequence

from rlp.data.unusable import Unusable
from rlp.runtime.display import listed

LOGGER = logging.getLogger(__name__)

COMPRESSED = (".gz", ".zst", ".bz2", ".xz", ".zip")


class Files(list[str]):
    """Paths of files in their order, and the other files that were skipped.

    Attributes:
      skipped: counts by ending (".csv"), "without ending" or "hidden".
      unreadable: broken links.
      special: paths that are not regular files, with their kind: "FIFO data/a.jsonl".
    """

    def __init__(
        self,
        paths: Iterable[str] = (),
        skipped: Iterable[str] = (),
        unreadable: Iterable[str] = (),
        special: Iterable[str] = (),
    ) -> None:
        super().__init__(paths)
        self.skipped = collections.Counter(skipped)
        self.unreadable = list(unreadable)
        self.special = list(special)

    def describe_skipped(self) -> str:
        """Return the skipped files as a text: "1 .csv, 2 hidden"; "" if none were skipped."""
        parts = [f"{count} {kind}" for kind, count in sorted(self.skipped.items())]
        if self.unreadable:
            links = plural(len(self.unreadable), "broken links")
            parts.append(f"{links} ({listed(self.unreadable)})")
        if self.special:
            parts.append(f"{plural(len(self.special), 'special files')} ({listed(self.special)})")
        return ", ".join(parts)


class Summary:
    """Counts the contents of the files of a config field while they are read.

    Attributes:
      field: the config field that names the files.
      files: paths; empty if code yields the texts.
      noun: what the texts are, in the plural, such as "documents".
      unusable: counts rows, and those that cannot be used.
      text_counts: number of texts of each file, or of the code that yields them.
      empty: number of texts that are only white space and are left out.
      overlapping: number of texts that are left out because they contain a problem of a task file.
      latest: location of the text that was counted last: "a.jsonl, line 3".
      characters: number of characters of all texts.
      unsplit: .txt files in which the separator does not occur.
      without_calls: rows of conversations that are used without their tool calls.
    """

    def __init__(
        self, field: str, files: Sequence[str], max_unusable_share: float, noun: str
    ) -> None:
        """Start with counts of zero.

        Args:
          field, files, noun: see the attributes.
          max_unusable_share: maximum share of rows that may be skipped as unusable, in [0, 1].
        """
        self.field, self.files, self.noun = field, files, noun
        self.unusable = Unusable(field, max_unusable_share)
        self.text_counts = dict.fromkeys(files, 0)
        self.empty = self.overlapping = self.characters = 0
        self.latest = ""
        self.unsplit: list[str] = []
        self.without_calls: list[str] = []

    def count(self, path: str, characters: int, where: str = "") -> None:
        """Count a text of a file; `where` is its location."""
        self.text_counts[path] = self.text_counts.get(path, 0) + 1
        self.characters += characters
        self.latest = where or path

    def finish(self, txt_separator: str = "") -> None:
        """Log warnings after all files have been read.

        Args:
          txt_separator: the separator that .txt files were split at.

        Raises:
          UserError: If too many rows are unusable.
        """
        self.unusable.finish()
        if self.unsplit:
            hint = "; in a shell, write $'\\n' for a line break" if "\\n" in txt_separator else ""
            LOGGER.warning(
                "%s: data.txt_separator=%r does not occur in %d .txt file(s), so each of them is "
                "one document%s: %s",
                self.field, txt_separator, len(self.unsplit), hint, listed(self.unsplit),
            )  # fmt: skip

        if self.without_calls:
            LOGGER.warning(
                "%s: the tool calls of %d row(s) are left out, since the chat template does not "
                "render them or data.chat_template=none; set it to a template that does: %s",
                self.field, len(self.without_calls), listed(self.without_calls),
            )  # fmt: skip

    def named(self) -> str:
        """Return the files and what else yields texts, for messages."""
        return listed(list(dict.fromkeys([*self.files, *self.text_counts])))

    def why_none(self) -> str:
        """Return what every text is if none was counted, for messages."""
        return "empty or overlaps with data.exclude_overlaps" if self.overlapping else "empty"

    def log(self, tokens: int, rows: str) -> None:
        """Log the summary as one line.

        Args:
          tokens: number of tokens of all texts.
          rows: text about the rows: how many there are, and what they leave out.
        """
        LOGGER.info("%s", "; ".join([self._files(), self._texts(tokens), rows]))

    def _files(self) -> str:
        if not self.files:
            return f"{self.field}={', '.join(self.text_counts)}"
        kinds = collections.Counter(map(ending, self.files))
        by_kind = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        line = f"{self.field}: read {plural(len(self.files), 'files')} ({by_kind})"
        if isinstance(self.files, Files) and (skipped := self.files.describe_skipped()):
            line += f", skipped: {skipped}"
        if blank := [path for path, count in self.text_counts.items() if not count]:
            line += f", {len(blank)} without {self.noun}: {listed(blank)}"
        if generated := [name for name in self.text_counts if name not in self.files]:
            line += f", and {listed(generated)}"
        return line

    def _texts(self, tokens: int) -> str:
        line = (
            f"{plural(sum(self.text_counts.values()), self.noun)} with {self.characters:,} "
            f"characters and {tokens:,} tokens"
        )
        left_out = [
            f"{count:,} {name}"
            for name, count in (
                ("empty", self.empty),
                ("unusable", len(self.unusable)),
                ("in data.exclude_overlaps", self.overlapping),
            )
            if count
        ]
        return line + (f", left out: {' and '.join(left_out)}" if left_out else "")


def ending(path: str) -> str:
    """Return the ending of a file name in lower case, including the inner one of a compressed file
    (".jsonl.bz2"), or "without ending"."""
    name = path.rpartition("/")[2].lower()
    compressed = next((end for end in COMPRESSED if name.endswith(end)), "")
    inner, dot, last = name.removesuffix(compressed).rpartition(".")
    return (f".{last}" if inner and dot else "") + compressed or "without ending"


def plural(count: int, noun: str) -> str:
    """Return a count with a noun in the plural, which must end in s: "1 file", "2,000 files"."""
    return f"{count:,} {noun.removesuffix('s') if count == 1 else noun}"
