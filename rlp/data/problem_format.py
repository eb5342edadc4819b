"""How a row of a file is a problem with an answer."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from rlp.answers.verifiers import Gold
from rlp.data.columns import Column
from rlp.data.sources import as_text
from rlp.runtime.errors import UserError

GROUP = "data.problems"  # of the fields of the config
PROBLEM = "{problem}"  # its place in the instruction


@dataclasses.dataclass(frozen=True)
class ProblemFormat:
    """How a row of a file is a problem.

    Attributes:
      prompt, answer: names of the columns.
      options: of the column with a list of choices, shown as lines "A. …"; "" for none.
      marker: the answer is what follows its last occurrence in that column; "" for all of it.
      instruction: text with `PROBLEM` in it.
    """

    prompt: str
    answer: str
    options: str = ""
    marker: str = ""
    instruction: str = PROBLEM

    @property
    def columns(self) -> list[Column]:
        """With the fields of the config that name them."""
        named = (
            (f"{GROUP}.prompt_column", self.prompt),
            (f"{GROUP}.answer_column", self.answer),
            (f"{GROUP}.options_column", self.options),
        )
        return [column for column in named if column[1]]

    def problem(
        self,
        where: str,
        values: Sequence[object],
        gold: Callable[[str | int | float, Sequence[str] | None], Gold],
    ) -> tuple[str, Gold]:
        """The prompt and the answer of a row.

        Args:
          where: the row stands, for messages of errors.
          values: of `columns`.
          gold: makes the answer of its value and the texts of the options, see `Golds.gold`.

        Raises:
          UserError: a value of another kind, an answer without the marker, an empty one, one that
            cannot be right.
        """
        text = as_text(where, self.prompt, values[0])
        answer = self._answer(where, values[1])
        if not text.strip():
            raise UserError(f"{where}: column {self.prompt!r} holds no problem")
        options = self._options(where, values[2]) if self.options else None
        try:
            right = gold(answer, options)
        except UserError as error:
            raise UserError(f"{where}: its answer {error}") from error
        lines = [f"{chr(ord('A') + n)}. {option}" for n, option in enumerate(options or ())]
        return self.instruction.replace(PROBLEM, "\n".join([text, *lines])), right

    def _answer(self, where: str, value: object) -> str | int | float:
        """The value of an answer, without what stands before the marker."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not math.isfinite(value):  # a missing number, as pandas writes it
                raise UserError(f"{where}: column {self.answer!r} holds no answer but {value}")
            if not self.marker:
                return value
            value = str(value)
        text = as_text(where, self.answer, value)
        if self.marker:
            _, found, text = text.rpartition(self.marker)
            if not found:
                raise UserError(
                    f"{where}: column {self.answer!r} has no {self.marker!r}, after which "
                    f"{GROUP}.answer_marker says that the answer stands"
                )
        if not text.strip():
            raise UserError(f"{where}: column {self.answer!r} holds no answer")
        return text.strip()

    def _options(self, where: str, values: object) -> list[str]:
        if not isinstance(values, list):
            as_text(where, self.options, values)  # says what there is, where it is not even a text
        if not isinstance(values, list) or not 0 < len(values) <= 26:
            raise UserError(f"{where}: column {self.options!r} is not a list of up to 26 options")
        return [as_text(where, self.options, value) for value in values]
