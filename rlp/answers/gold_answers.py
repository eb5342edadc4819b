"""Gold answers of files, checked when they are read: does the verifier accept them?

    value of a file → Gold → accepted as a response that contains only it? → usable, or not

Results are cached on disk by content, so that the next start with the same answers takes no time,
in $XDG_CACHE_HOME/rlp or else ~/.cache/rlp.
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
REASONS = 100  # number of unusable answers whose reasons are sent to other hosts in full


class GoldAnswers:
    """Converts the gold answers of files, and checks them."""

    def __init__(self, grader: Grader) -> None:
        """Create an object that checks answers with `grader`."""
        self._grader = grader

    def gold(self, answer: str | int | float, options: Sequence[str] | None) -> Gold:
        """Convert a value of a file to a gold answer.

        Args:
          answer: the value.
          options: the texts of the options; None if the row has none.

        Raises:
          UserError: If the verifier cannot use it; the message continues "the gold answer".
        """
        convert = verifiers.find(self._grader.verifier).gold
        try:
            text = convert(answer, options) if convert else str(answer)
        except UserError:
            raise
        except Exception as error:  # a user's verifier can raise any error
            raise UserError(f"is refused: {type(error).__name__}: {error}") from error
        return Gold(text.strip(), len(options or ()))

    def reasons(self, golds: Sequence[Gold]) -> list[str | None]:
        """Return why each gold answer cannot be used; None for a usable one.

        All hosts call this; only the first host checks the answers, in separate processes.
        """
        unique = sorted({(str(gold), gold.options) for gold in golds})
        number = {key: index for index, key in enumerate(unique)}
        unusable = dict(hosts.agree(lambda: self._unusable([Gold(*key) for key in unique])))
        reasons = (unusable.get(number[str(gold), gold.options]) for gold in golds)
        return [
            f"the gold answer {gold[:40]!r} {reason}" if reason else None
            for gold, reason in zip(golds, reasons, strict=True)
        ]

    def _unusable(self, golds: Sequence[Gold]) -> list[tuple[int, str]]:
        """Return the numbers of the answers that cannot be used, with reasons."""
        if not golds:
            return []
        path = self._cache_file(golds)
        if (cached := _read(path)) is not None:
            return cached
        if len(golds) > 1000:
            LOGGER.info("checking %d gold answers of data.problems", len(golds))
        reasons = self._grader.why_unusable(golds)
        # Check again what got no verdict: a busy machine must not change which rows are used.
        no_verdict = [gold for gold, reason in zip(golds, reasons, strict=True) if reason is None]
        patient = dataclasses.replace(self._grader, time_limit=4 * self._grader.time_limit)
        second = iter(patient.why_unusable(no_verdict) if no_verdict else [])
        reasons = [next(second) if reason is None else reason for reason in reasons]
        unusable = [
            (number, self._no_verdict() if reason is None else reason)
            for number, reason in enumerate(reasons)
            if reason != ""
        ]
        full, rest = unusable[:REASONS], unusable[REASONS:]
        unusable = full + [(number, "cannot be used") for number, _ in rest]
        if None not in reasons:  # a check without a verdict might succeed the next time
            _write(path, unusable)
        return unusable

    def _no_verdict(self) -> str:
        return (
            "was checked twice without a verdict: the check takes longer than "
            f"data.problems.time_limit={self._grader.time_limit} seconds (four times that the "
            "second time), or its process dies, for example because data.problems.memory_limit="
            f"{self._grader.memory_limit:g} GiB is too little; raise these limits"
        )

    def _libraries(self) -> list[str]:
        """Return the packages whose versions may change a verdict."""
        scorers = ["reasoning-gym"] if self._grader.verifier == "reasoning_gym" else []
        return [*LIBRARIES, *scorers]

    def _cache_file(self, golds: Sequence[Gold]) -> Path | None:
        """Return the file that caches the result for these answers; None if nothing is cached.

        Results of a user's verifier are not cached, since its code may be in any number of files.
        """
        if self._grader.verifier not in verifiers.VERIFIERS:
            return None
        content = {
            "verifier": self._grader.verifier,
            "code": _code(),
            "libraries": [importlib.metadata.version(name) for name in self._libraries()],
            "answers": [(str(gold), gold.options) for gold in golds],
        }
        folder = _cache()
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        return folder and folder / "golds" / f"{name}.json"


def _cache() -> Path | None:
    """Return the cache folder; None if the user has no home directory."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if folder.is_absolute():
        return folder / "rlp"
    try:
        return Path.home() / ".cache" / "rlp"
    except RuntimeError:
        return None


def _code() -> str:
    """Return a hash of the code that compares answers."""
    state = hashlib.sha256()
    for file in sorted(Path(verifiers.__file__).parent.glob("*.py")):
        state.update(file.read_bytes())
    return state.hexdigest()


def _read(path: Path | None) -> list[tuple[int, str]] | None:
    """Return the content of a cache file; None if it does not exist or is malformed."""
    if path is None:
        return None
    try:
        return [(int(number), str(reason)) for number, reason in parse(path.read_text())]
    except (OSError, ValueError, TypeError):
        return None


def _write(path: Path | None, unusable: Sequence[tuple[int, str]]) -> None:
    """Write a cache file atomically; log a warning if the folder cannot be written."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write_whole(path, json.dumps(unusable))
    except OSError as error:
        LOGGER.warning(
            "%s cannot be written (%s): the next start checks the gold answers again; set "
            "XDG_CACHE_HOME to another folder to cache the results",
            *(path.parent, error.strerror or error),
        )
