"""What was read from the files of a field of the config, as one line for the log."""

import collections
import logging
from collections.abc import Iterable, Sequence

from rlp.data.unusable import Unusable
from rlp.runtime.display import listed

LOGGER = logging.getLogger(__name__)

PACKED = (".gz", ".zst", ".bz2", ".xz", ".zip")


class Files(list[str]):
    """Paths of files in their order, and what was passed over where they were found.

    Attributes:
      passed_over: counts by ending (".csv"), "no ending" or "hidden".
      unreadable: links that lead nowhere.
      special: what is neither a file nor a folder, "FIFO data/a.jsonl".
    """

    def __init__(
        self,
        paths: Iterable[str] = (),
        passed_over: Iterable[str] = (),
        unreadable: Iterable[str] = (),
        special: Iterable[str] = (),
    ) -> None:
        super().__init__(paths)
        self.passed_over = collections.Counter(passed_over)
        self.unreadable = list(unreadable)
        self.special = list(special)

    def not_read(self) -> str:
        """What was passed over: ".csv 1, hidden 2"; "" if nothing was."""
        told = [f"{what} {count}" for what, count in sorted(self.passed_over.items())]
        if self.unreadable:
            told.append(f"broken links {len(self.unreadable)} ({listed(self.unreadable)})")
        if self.special:
            told.append(f"not regular files {len(self.special)} ({listed(self.special)})")
        return ", ".join(told)


class Summary:
    """Counts what the files of a field hold, while they are read.

    Attributes:
      field: of the config, which names the files.
      files: paths; empty where code gives the texts.
      what: the texts are called, in the plural.
      unusable: counts rows, and those that cannot be used.
      found: number of texts of each file, or of the code that gives them.
      empty: number of texts that hold nothing but white space and are left out.
      characters: of all texts.
      unsplit: .txt files in which the separator does not occur.
      without_calls: rows of conversations that are used without what their assistant calls.
    """

    def __init__(self, field: str, files: Sequence[str], most: float, what: str) -> None:
        """Starts to count.

        Args:
          field, files, what: as the attributes.
          most: largest share of the rows that may be left out as unusable, in [0, 1].
        """
        self.field, self.files, self.what = field, files, what
        self.unusable = Unusable(field, most)
        self.found = dict.fromkeys(files, 0)
        self.empty = self.characters = 0
        self.unsplit: list[str] = []
        self.without_calls: list[str] = []

    def count(self, path: str, characters: int) -> None:
        """Counts a text of a file."""
        self.found[path] = self.found.get(path, 0) + 1
        self.characters += characters

    def finish(self, txt_separator: str = "") -> None:
        """Call this when all files are read.

        Args:
          txt_separator: that was looked for in .txt files.

        Raises:
          UserError: more rows than allowed cannot be used.
        """
        self.unusable.finish()
        if self.unsplit:
            hint = "; in a shell, write $'\\n' for a line break" if "\\n" in txt_separator else ""
            LOGGER.warning(
                "%s: data.txt_separator=%r does not occur in %d .txt files, each of which is one "
                "document%s: %s",
                self.field, txt_separator, len(self.unsplit), hint, listed(self.unsplit),
            )  # fmt: skip

        if self.without_calls:
            LOGGER.warning(
                "%s: the tool calls of %d rows are left out, for no chat template writes them; set "
                "data.chat_template to one that does: %s",
                self.field, len(self.without_calls), listed(self.without_calls),
            )  # fmt: skip

    def tell(self, tokens: int, rows: str) -> None:
        """Logs the line.

        Args:
          tokens: of all texts.
          rows: what became of them: how many rows there are, and what they leave out.
        """
        LOGGER.info("%s", "; ".join([self._files(), self._texts(tokens), rows]))

    def _files(self) -> str:
        if not self.files:
            return f"{self.field}={', '.join(self.found)}"
        kinds = collections.Counter(map(ending, self.files))
        told = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
        line = f"{self.field}: {many(len(self.files), 'files')} read ({told})"
        if isinstance(self.files, Files) and (not_read := self.files.not_read()):
            line += f", passed over: {not_read}"
        if blank := [path for path, count in self.found.items() if not count]:
            line += f", {len(blank)} without {self.what}: {listed(blank)}"
        return line

    def _texts(self, tokens: int) -> str:
        line = (
            f"{many(sum(self.found.values()), self.what)} of {self.characters:,} characters and "
            f"{tokens:,} tokens"
        )
        left_out = [
            f"{count:,} {name}"
            for name, count in (("empty", self.empty), ("unusable", len(self.unusable)))
            if count
        ]
        return line + (f", {' and '.join(left_out)} left out" if left_out else "")


def ending(path: str) -> str:
    """The ending of a file's name in lower case, with the one before it if the file is packed
    (".jsonl.bz2"); "no ending" if there is none."""
    name = path.rpartition("/")[2].lower()
    packed = next((end for end in PACKED if name.endswith(end)), "")
    inner, dot, last = name.removesuffix(packed).rpartition(".")
    return (f".{last}" if inner and dot else "") + packed or "no ending"


def many(count: int, things: str) -> str:
    """A count of things whose name ends in s: "1 file", "2,000 files"."""
    return f"{count:,} {things.removesuffix('s') if count == 1 else things}"
