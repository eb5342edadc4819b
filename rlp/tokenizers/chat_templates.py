"""Chat templates, rendered in a process with limits of time, memory and output.

A template is code that came with a model. Its sandbox (jinja2's) keeps it from files and from the
interpreter, but not from loops without an end or texts of any length, and what happens in the C of
a text's methods can neither be counted nor interrupted in this process.
"""

import atexit
import functools
import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from rlp.runtime import limited_process
from rlp.runtime.errors import UserError

Request = tuple[Sequence[Mapping[str, Any]], bool]  # messages, and whether an answer is asked for
SECONDS = 20.0  # for one conversation; it takes a thousandth of a second
MEMORY = 2 * limited_process.GIB  # beyond what the process needs to start
OUTPUT = 2**26  # characters of one text
_START = 120.0  # seconds until the process answers for the first time: its imports
_CODE = (
    "import sys; sys.path[:0] = sys.argv[2:]; "
    "from rlp.tokenizers.chat_templates import serve; serve()"
)


class LimitExceeded(UserError):
    """A template takes too much. It is refused as a whole, not the row that it was to render: the
    next row would take as much again."""


class Renderer:
    """A process that renders templates; it starts with the first one, and again after its end."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._pipe: Connection | None = None

    def render(
        self, template: str, requests: Sequence[Request], named: Mapping[str, str], source: str
    ) -> list[str | UserError]:
        """The texts that a template makes of messages, as transformers renders it.

        Args:
          template: Jinja.
          requests: conversations, with what stands before an answer or without it.
          named: further variables of the template: special tokens by their roles.
          source: where the template comes from, for messages.

        Returns:
          Of each request its text, or why the template fails on it. After a `LimitExceeded`
          nothing follows.
        """
        pipe = self._send(pickle.dumps((template, requests, dict(named))))
        found: list[str | UserError] = []
        try:
            while len(found) < len(requests):
                found.append(self._received(pipe, source))
                if isinstance(found[-1], LimitExceeded):
                    self.stop()
                    break
        except BaseException:  # what comes through the pipe next would answer these requests
            self.stop()
            raise
        return found

    def _send(self, requests: bytes) -> Connection:
        """Hands requests to the process; one that ended in the meantime is replaced."""
        if self._pipe is not None:
            try:
                self._pipe.send_bytes(requests)
                return self._pipe
            except ConnectionError:
                self.stop()
        pipe = self._start()
        pipe.send_bytes(requests)
        return pipe

    def _received(self, pipe: Connection, source: str) -> str | UserError:
        """The next text."""
        if not pipe.poll(SECONDS):
            return LimitExceeded(f"{source} takes longer than {SECONDS:g} s for a conversation")
        try:
            text, error = json.loads(pipe.recv_bytes())
        except (EOFError, ConnectionError):
            return LimitExceeded(
                f"{source} ended the process that renders it: it takes more than "
                f"{MEMORY / limited_process.GIB:g} GiB of memory, or too deep a recursion"
            )
        if error is not None:
            return UserError(f"the chat template fails: {error}")
        if text is None:
            return LimitExceeded(f"{source} writes more than {OUTPUT:,} characters")
        return text

    def stop(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def _start(self) -> Connection:
        ours, theirs = Pipe()
        root = str(Path(__file__).resolve().parents[2])
        command = [sys.executable, "-c", _CODE, str(theirs.fileno()), root]
        with limited_process.signals_blocked():
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        theirs.close()
        self._pipe = ours
        try:
            if ours.poll(_START):
                ours.recv_bytes()
                return ours
        except EOFError:
            pass  # it said why, above
        except BaseException:
            self.stop()
            raise
        self.stop()
        raise UserError(
            f"the process that renders chat templates did not start in {_START:g} seconds; see "
            "above for its own error, if there is one, or try again when the machine is less busy"
        )


@functools.cache
def renderer() -> Renderer:
    """The one of this program."""
    made = Renderer()
    atexit.register(made.stop)
    return made


def serve() -> None:
    """What the process does: renders what it is sent, until the other end is closed."""
    limited_process.ignore_signals()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    from transformers.utils.chat_template_utils import render_jinja_template

    pipe = Connection(int(sys.argv[1]))
    render_jinja_template([[{"role": "user", "content": ""}]], chat_template="")  # more imports
    limited_process.limit_memory(MEMORY)
    pipe.send_bytes(b"")
    while True:
        try:
            template, requests, named = pickle.loads(pipe.recv_bytes())
        except (EOFError, MemoryError):
            return
        for messages, ask in requests:
            # Where the other process is killed, nobody else would end a template without an end.
            answer = limited_process.call(
                2 * SECONDS, _answer, render_jinja_template, template, messages, ask, named
            )
            pipe.send_bytes(answer)


def _answer(
    render: Any,
    template: str,
    messages: Sequence[Mapping[str, Any]],
    ask: bool,
    named: Mapping[str, str],
) -> bytes:
    """A JSON text: [text, null], [null, why it fails], or [null, null] for too long a text."""
    try:
        (text,), _ = render([messages], chat_template=template, add_generation_prompt=ask, **named)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  a template can raise what it likes
        return json.dumps([None, " ".join(str(error).split())[:200]]).encode()
    return json.dumps([text if len(text) <= OUTPUT else None, None]).encode()
