"""Render chat templates in a child process with limits on time, memory and output.

A template is code that comes with a model. jinja2's sandbox keeps it from files and from the
interpreter, but not from endless loops or arbitrarily long strings, and string methods that run in
C can neither be counted nor interrupted in this process.
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

Request = tuple[Sequence[Mapping[str, Any]], bool]  # messages, and whether to add the answer prompt
SECONDS = 20.0  # limit for one conversation, which takes about a millisecond
MEMORY = 2 * limited_process.GIB  # limit beyond the memory that the process needs to start
OUTPUT = 2**26  # maximum characters of one text
_START = 120.0  # limit in seconds for the process to start, that is, for its imports
_CURE = "correct the template, or set data.chat_template to another one"
_CODE = (
    "import sys; sys.path[:0] = sys.argv[2:]; "
    "from rlp.tokenizers.chat_templates import serve; serve()"
)


class LimitExceeded(UserError):
    """A template exceeds a limit.

    The template is refused for all rows, because the next row would exceed the limit again.
    """


class Renderer:
    """Renders templates in a child process, which starts on first use and again after it ends."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._pipe: Connection | None = None

    def render(
        self, template: str, requests: Sequence[Request], roles: Mapping[str, str], source: str
    ) -> list[str | UserError]:
        """Render conversations with a template, as transformers does.

        Args:
          template: The Jinja source.
          requests: Conversations, each with whether to add the prompt of an answer at the end.
          roles: Further variables of the template: special tokens by their roles.
          source: Where the template comes from, for messages.

        Returns:
          For each request its text, or the error of the template. A `LimitExceeded` is the last
          element, even if there are more requests.
        """
        pipe = self._send(pickle.dumps((template, requests, dict(roles))))
        results: list[str | UserError] = []
        try:
            while len(results) < len(requests):
                results.append(self._receive(pipe, source))
                if isinstance(results[-1], LimitExceeded):
                    self.stop()
                    break
        except BaseException:  # the pipe may still deliver answers to these requests
            self.stop()
            raise
        return results

    def _send(self, requests: bytes) -> Connection:
        """Send requests to the process, which is restarted if it has ended."""
        if self._pipe is not None:
            try:
                self._pipe.send_bytes(requests)
                return self._pipe
            except ConnectionError:
                self.stop()
        pipe = self._start()
        pipe.send_bytes(requests)
        return pipe

    def _receive(self, pipe: Connection, source: str) -> str | UserError:
        """Receive the next text."""
        if not pipe.poll(SECONDS):
            return LimitExceeded(
                f"{source} takes longer than {SECONDS:g} s for a conversation; {_CURE}"
            )
        try:
            text, error = json.loads(pipe.recv_bytes())
        except (EOFError, ConnectionError):
            return LimitExceeded(
                f"{source} ended the process that renders it: it needs more than "
                f"{MEMORY / limited_process.GIB:g} GiB of memory, or recurses too deeply; {_CURE}"
            )
        if error is not None:
            return UserError(f"the chat template fails: {error}")
        if text is None:
            return LimitExceeded(f"{source} writes more than {OUTPUT:,} characters; {_CURE}")
        return text

    def stop(self) -> None:
        """End the process."""
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
            pass  # the process has printed its error
        except BaseException:
            self.stop()
            raise
        self.stop()
        raise UserError(
            f"the process that renders chat templates did not start within {_START:g} s; fix the "
            "error that it printed above, or try again when the machine is less busy"
        )


@functools.cache
def renderer() -> Renderer:
    """Return the renderer of this program, which is created on the first call."""
    instance = Renderer()
    atexit.register(instance.stop)
    return instance


def serve() -> None:
    """Run the child process: render the requests it receives until the connection is closed."""
    limited_process.ignore_signals()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    from transformers.utils.chat_template_utils import render_jinja_template

    pipe = Connection(int(sys.argv[1]))
    render_jinja_template([[{"role": "user", "content": ""}]], chat_template="")  # more imports
    limited_process.limit_memory(MEMORY)
    pipe.send_bytes(b"")
    while True:
        try:
            template, requests, roles = pickle.loads(pipe.recv_bytes())
        except (EOFError, MemoryError):
            return
        for messages, ask in requests:
            # The limit ends an endless template even if the main process was killed.
            answer = limited_process.call(
                2 * SECONDS, _answer, render_jinja_template, template, messages, ask, roles
            )
            pipe.send_bytes(answer)


def _answer(
    render: Any,
    template: str,
    messages: Sequence[Mapping[str, Any]],
    ask: bool,
    roles: Mapping[str, str],
) -> bytes:
    """Return JSON: [text, null], [null, error message], or [null, null] if the text is too long."""
    try:
        (text,), _ = render([messages], chat_template=template, add_generation_prompt=ask, **roles)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  a template can raise anything
        return json.dumps([None, " ".join(str(error).split())[:200]]).encode()
    return json.dumps([text if len(text) <= OUTPUT else None, None]).encode()
