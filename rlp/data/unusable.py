"""Rows of files that cannot be used: they are left out and counted, up to a share of all rows."""

import logging

from rlp.runtime.errors import UserError

LOGGER = logging.getLogger(__name__)

SHOWN = 3  # rows whose reasons are given


class Unusable:
    """Counts the rows of some files, and keeps the first reasons why some cannot be used."""

    def __init__(self, field: str, most: float) -> None:
        """Starts to count.

        Args:
          field: name of the config field that the files come from, for messages.
          most: largest share of the rows that may be left out, in [0, 1]
            (`data.max_unusable_share`).
        """
        self._field, self._most = field, most
        self.rows = self._bad = 0
        self._reasons: list[str] = []  # the first few

    def __len__(self) -> int:
        """Number of rows that cannot be used."""
        return self._bad

    def count(self, reason: UserError | str | None = None) -> None:
        """Counts a row; `reason` names it and says why it cannot be used, None if it can."""
        self.rows += 1
        if reason is not None:
            self._bad += 1
            if self._bad <= SHOWN:
                self._reasons.append(str(reason))

    def finish(self) -> None:
        """Logs how many rows were left out, and the first reasons.

        Raises:
          UserError: more rows than allowed cannot be used.
        """
        if not self._bad:
            return
        shown = "; ".join(self._reasons)
        more = self._bad - SHOWN
        told = f"{shown}; and {more} more" if more > 0 else shown
        counted = f"{self._field}: {len(self)} of {self.rows} rows cannot be used"
        if len(self) == self.rows:
            raise UserError(
                f"{counted}; correct them or the fields that name their columns: {told}"
            )
        if len(self) > self._most * self.rows:
            raise UserError(
                f"{counted}, more than data.max_unusable_share={self._most} allows; correct the "
                f"rows or the fields that name their columns: {told}",
                field="data.max_unusable_share",
                value=self._most,
            )
        LOGGER.warning("%s and are left out: %s", counted, told)
