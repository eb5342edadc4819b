"""Right answers of files, checked when they are read: could any response give them?

    value of a file → Gold → judged right in a response that says nothing else? → usable, or not

What was found is kept on disk by content, so that the next start with the same answers takes no
time: in $XDG_CACHE_HOME/rlp, else ~/.cache/rlp.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from rlp.answers import verifiers
from rlp.answers.grading import Grader
from rlp.answers.verifiers import Gold
from rlp.runtime import atomic_files, hosts
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import parse

LOGGER = logging.getLogger(__name__)

LIBRARIES = ("math-verify", "latex2sympy2_extended", "sympy")  # whose versions may change a verdict
REASONS = 100  # unusable answers whose reasons other hosts are given in full


class GoldAnswers:
    """Makes and checks the right answers of files."""

    def __init__(self, grader: Grader) -> None:
        """Nothing is checked yet; `grader` does it."""
        self._grader = grader

    def gold(self, answer: str | int | float, options: Sequence[str] | None) -> Gold:
        """The right answer that a value of a file is.

        Args:
          answer: the value.
          options: the texts of the options; None where the row has none.

        Raises:
          UserError: it cannot be one for this verifier; the message follows "its answer".
        """
        made = verifiers.find(self._grader.verifier).gold
        try:
            text = made(answer, options) if made else str(answer)
        except UserError:
            raise
        except Exception as error:  # a verifier of the user's can raise what it likes
            raise UserError(f"is refused: {type(error).__name__}: {error}") from error
        return Gold(text.strip(), len(options or ()))

    def reasons(self, golds: Sequence[Gold]) -> list[str | None]:
        """Why each of some right answers cannot be used; None where it can.

        The first host checks them, in processes; all hosts call this.
        """
        each = sorted({(str(gold), gold.options) for gold in golds})
        number = {key: place for place, key in enumerate(each)}
        bad = dict(hosts.agree(lambda: self._bad([Gold(*key) for key in each])))
        found = (bad.get(number[str(gold), gold.options]) for gold in golds)
        return [
            f"its answer {gold[:40]!r} {reason}" if reason else None
            for gold, reason in zip(golds, found, strict=True)
        ]

    def _bad(self, golds: Sequence[Gold]) -> list[tuple[int, str]]:
        """Numbers of the answers that cannot be used, with reasons."""
        place = self._place(golds)
        if (known := _read(place)) is not None:
            return known
        if len(golds) > 1000:
            LOGGER.info("checking %d answers of data.problems", len(golds))
        reasons = self._grader.can_be_given(golds)
        # A machine that was busy for a moment must not change which rows there are.
        again = [gold for gold, reason in zip(golds, reasons, strict=True) if reason is None]
        patient = dataclasses.replace(self._grader, time_limit=4 * self._grader.time_limit)
        second = iter(patient.can_be_given(again) if again else [])
        reasons = [next(second) if reason is None else reason for reason in reasons]
        checked = list(zip(golds, reasons, strict=True))
        bad = [
            (number, self._too_slow() if reason is None else reason)
            for number, (_, reason) in enumerate(checked)
            if reason != ""
        ]
        bad = bad[:REASONS] + [(number, "cannot be used") for number, _ in bad[REASONS:]]
        if all(reason is not None for _, reason in checked):  # another time it might be fast enough
            _write(place, bad)
        return bad

    def _too_slow(self) -> str:
        return (
            "ends its check twice without a verdict: it takes longer than data.problems.time_limit="
            f"{self._grader.time_limit} seconds, four times that the second time, or the process "
            f"dies, as it does where data.problems.memory_limit={self._grader.memory_limit:g} GiB "
            "are not enough"
        )

    def _place(self, golds: Sequence[Gold]) -> Path | None:
        """The file that keeps what is found of these answers; None without a place for it.

        Nothing is kept of a verifier of the user's, whose code may be in any number of files.
        """
        if self._grader.verifier not in verifiers.VERIFIERS:
            return None
        content = {
            "verifier": self._grader.verifier,
            "code": _code(),
            "libraries": [importlib.metadata.version(name) for name in LIBRARIES],
            "answers": [(str(gold), gold.options) for gold in golds],
        }
        folder = _cache()
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        return folder and folder / "golds" / f"{name}.json"


def _cache() -> Path | None:
    """The folder for what can be computed again; None where the user has no home."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():
        return named / "rlp"
    try:
        return Path.home() / ".cache" / "rlp"
    except RuntimeError:
        return None


def _code() -> str:
    """A hash of the code that compares answers."""
    made = hashlib.sha256()
    for file in sorted(Path(verifiers.__file__).parent.glob("*.py")):
        made.update(file.read_bytes())
    return made.hexdigest()


def _read(place: Path | None) -> list[tuple[int, str]] | None:
    """What a file of the cache says; None where there is none that can be read."""
    if place is None:
        return None
    try:
        return [(int(number), str(reason)) for number, reason in parse(place.read_text())]
    except (OSError, ValueError, TypeError):
        return None


def _write(place: Path | None, bad: Sequence[tuple[int, str]]) -> None:
    """Keeps what was found, whole or not at all; a folder that cannot be written keeps nothing."""
    if place is None:
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write_whole(place, json.dumps(bad))
    except OSError as error:
        LOGGER.warning(
            "%s cannot be written (%s): the next start checks the answers again; set "
            "XDG_CACHE_HOME to another folder to keep what was found",
            *(place.parent, error.strerror or error),
        )
