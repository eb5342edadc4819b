"""Unusable rows of files, which are skipped and counted, up to a share of all rows."""

import logging

from rlp.runtime.errors import UserError

LOGGER = logging.getLogger(__name__)

SHOWN = 3  # rows whose reasons are logged


class Unusable:
    """Counts the rows of some files, and keeps the first reasons why rows are unusable."""

    def __init__(self, field: str, max_share: float) -> None:
        """Start with counts of zero.

        Args:
          field: config field that the files come from, for messages.
          max_share: maximum share of rows that may be skipped, in [0, 1]
            (`data.max_unusable_share`).
        """
        self._field, self._max_share = field, max_share
        self.rows = self._unusable = 0
        self._reasons: list[str] = []  # the first few

    def __len__(self) -> int:
        """Return the number of unusable rows."""
        return self._unusable

    def count(self, reason: UserError | str | None = None) -> None:
        """Count a row; `reason` names an unusable row and what is wrong, None means usable."""
        self.rows += 1
        if reason is not None:
            self._unusable += 1
            if self._unusable <= SHOWN:
                self._reasons.append(str(reason))

    def finish(self) -> None:
        """Log the number of skipped rows, and the first reasons.

        Raises:
          UserError: If more rows are unusable than allowed.
        """
        if not self._unusable:
            return
        shown = "; ".join(self._reasons)
        more = self._unusable - SHOWN
        reasons = f"{shown}; and {more} more" if more > 0 else shown
        count = f"{self._field}: {len(self)} of {self.rows} rows cannot be used"
        if len(self) == self.rows:
            raise UserError(
                f"{count}; correct them or the fields that name their columns: {reasons}"
            )
        if len(self) > self._max_share * self.rows:
            raise UserError(
                f"{count}, more than data.max_unusable_share={self._max_share} allows; correct the "
                f"rows or the fields that name their columns, or raise it: {reasons}",
                field="data.max_unusable_share",
                value=self._max_share,
            )
        LOGGER.warning("%s and are skipped: %s", count, reasons)
