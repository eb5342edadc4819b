"""Convert a row of a file to a problem with its gold answer."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from rlp.answers.verifiers import Gold
from rlp.data.columns import Column
from rlp.data.sources import as_text
from rlp.runtime.errors import UserError

GROUP = "data.problems"  # the group of the config fields
PROBLEM = "{problem}"  # the placeholder for the problem in the instruction


@dataclasses.dataclass(frozen=True)
class ProblemFormat:
    """The columns and texts that make a problem of a row.

    Attributes:
      prompt, answer: names of the columns with the problem and the gold answer.
      options: name of the column with a list of choices, shown as lines "A. …"; "" for none.
      marker: the gold answer is the text after its last occurrence in the answer column; "" for the
        whole value.
      instruction: text that contains `PROBLEM`.
    """

    prompt: str
    answer: str
    options: str = ""
    marker: str = ""
    instruction: str = PROBLEM

    @property
    def columns(self) -> list[Column]:
        """The columns that are used, with the config fields that name them."""
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
        """Return the prompt and the gold answer of a row.

        Args:
          where: file and row, for error messages.
          values: the values of `columns`.
          gold: converts the value of an answer and the texts of the options to a gold answer, see
            `GoldAnswers.gold`.

        Raises:
          UserError: If a value has the wrong type, the answer lacks the marker or is empty, or the
            verifier cannot use it.
        """
        text = as_text(where, self.prompt, values[0])
        answer = self._answer(where, values[1])
        if not text.strip():
            raise UserError(f"{where}: column {self.prompt!r} is empty, but must contain a problem")
        options = self._options(where, values[2]) if self.options else None
        return self.asked(where, text, answer, options, gold)

    def asked(
        self,
        where: str,
        text: str,
        answer: str | int | float,
        options: Sequence[str] | None,
        gold: Callable[[str | int | float, Sequence[str] | None], Gold],
    ) -> tuple[str, Gold]:
        """Return the prompt and the gold answer of a problem with its answer and options.

        Raises:
          UserError: If the verifier cannot use the answer.
        """
        try:
            gold_answer = gold(answer, options)
        except UserError as error:
            raise UserError(f"{where}: the gold answer {error}") from error
        lines = [f"{chr(ord('A') + n)}. {option}" for n, option in enumerate(options or ())]
        return self.instruction.replace(PROBLEM, "\n".join([text, *lines])), gold_answer

    def _answer(self, where: str, value: object) -> str | int | float:
        """Return the value of an answer, without the text up to the marker."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not math.isfinite(value):  # pandas writes a missing number as NaN
                raise UserError(
                    f"{where}: column {self.answer!r} must contain an answer but is {value}"
                )
            if not self.marker:
                return value
            value = str(value)
        text = as_text(where, self.answer, value)
        if self.marker:
            _, marker, text = text.rpartition(self.marker)
            if not marker:
                raise UserError(
                    f"{where}: column {self.answer!r} does not contain "
                    f"{GROUP}.answer_marker={self.marker!r}, which must precede the answer"
                )
        if not text.strip():
            raise UserError(f"{where}: column {self.answer!r} contains no answer")
        return text.strip()

    def _options(self, where: str, values: object) -> list[str]:
        if not isinstance(values, list):
            as_text(where, self.options, values)  # reports a missing value, or its type
        if not isinstance(values, list) or not 0 < len(values) <= 26:
            raise UserError(f"{where}: column {self.options!r} must be a list of 1 to 26 options")
        return [as_text(where, self.options, value) for value in values]
