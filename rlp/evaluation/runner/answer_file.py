"""The responses of a model to a benchmark, in a file that grows by a line per response.

The first line is the settings that the responses depend on. A line is in the file when `add`
returns, so a killed evaluation repeats only the responses that it had not finished.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlp.runtime import atomic_files, disk_errors
from rlp.runtime.errors import UserError
from rlp.runtime.strict_json import finite, parse

Key = tuple[str, int]  # the id of a problem, and the number of the run over all problems


class AnswerFile:
    """The finished responses of one model to one benchmark.

    Attributes:
      path: The file, in the JSON Lines format.
      records: The finished responses, by problem and run: the JSON object of each line.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], identities: Mapping[str, str]
    ) -> None:
        """Open a file, or begin it.

        A last line that was only partly written is removed. Responses to other problems stay in
        the file.

        Args:
          path: The file; its folder is created.
          settings: What all responses depend on, as JSON values. An existing file must have been
            begun with the same settings.
          identities: Problem -> a hash of what its responses depend on besides.

        Raises:
          UserError: If the file belongs to other settings or prompts, is damaged, or cannot be
            written.
        """
        self.path, self._identities = path, identities
        self.records: dict[Key, dict[str, Any]] = {}
        settings = parse(json.dumps(finite(settings)))
        with disk_errors.writing(path, disk_errors.RUN_AGAIN):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                atomic_files.write_whole(path, _line({"settings": settings}))
            self._read(settings)

    def add(self, problem: str, run: int, record: Mapping[str, Any]) -> None:
        """Append a finished response.

        Args:
          problem: The id of the problem.
          run: The number of the run over all problems.
          record: JSON values; a number that is not finite becomes null.

        Raises:
          UserError: If the file cannot be written.
        """
        whole = finite(
            {"problem": problem, "run": run, "prompt": self._identities[problem], **record}
        )
        with disk_errors.writing(self.path, disk_errors.RUN_AGAIN), self.path.open("ab") as file:
            end = file.tell()
            try:
                file.write(_line(whole))
                file.flush()
            except OSError:
                os.truncate(self.path, end)  # otherwise the next line would continue this one
                raise
        self.records[problem, run] = whole

    def _read(self, settings: Mapping[str, Any]) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        first, *lines = whole.split(b"\n")[:-1] or [b""]
        self._check(self._parsed(first, 1).get("settings"), settings)
        for number, line in enumerate(lines, 2):
            record = self._parsed(line, number)
            problem, run = str(record.get("problem")), record.get("run")
            if problem in self._identities:
                self._check_prompt(problem, record)
                self.records[problem, run if type(run) is int else 0] = record
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            value = parse(line.decode())
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise UserError(
                f"{self.path}, line {number}: damaged; remove the line, whose response is then "
                "sampled again" + (" (or the whole file)" if number == 1 else "")
            )
        return value

    def _check_prompt(self, problem: str, record: Mapping[str, Any]) -> None:
        if record.get("prompt") != self._identities[problem]:
            raise UserError(
                f"{self.path}: the response to problem {problem} is to another prompt (the "
                "problems, the examples or the tokenizer have changed); use another --out, or "
                "remove the file"
            )

    def _check(self, before: Any, now: Mapping[str, Any]) -> None:
        if before == now:
            return
        old = before if isinstance(before, dict) else {}
        changed = [
            f"{name} was {old.get(name)!r} and is now {now.get(name)!r}"
            for name in dict.fromkeys([*old, *now])
            if old.get(name) != now.get(name)
        ]
        raise UserError(
            f"{self.path} has responses of other settings ({'; '.join(changed)}); use another "
            "--out, or remove the file"
        )


def _line(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode(errors="backslashreplace")
