"""The thread that owns the network. Texts join a running batch as they arrive.

Texts begin in the order in which they were submitted. One that does not fit in the running batch
(see `Batch.fits`) waits until rows are free, or until the batch is finished, and nothing passes it.
A batch that is small because of texts that are finished is not joined when others wait: it ends.
Log-probabilities are computed when a text is finished, by one pass over its prompt and itself.
"""

import dataclasses
import threading
from collections import deque
from collections.abc import Callable

import jax

from rlp.evaluation.generation.batch import Batch, Row
from rlp.evaluation.generation.generator import Generator
from rlp.evaluation.generation.requests import Reader, Request, Response
from rlp.evaluation.options.option_scores import OptionScorer
from rlp.evaluation.options.token_ranks import Ranked, rank_tokens
from rlp.serving.fields import ApiError
from rlp.serving.protocol import MAX_TOP


@dataclasses.dataclass(frozen=True)
class Piece:
    """A text that goes on.

    Attributes:
      index: of the text in its job.
      text: all of it that later tokens do not change.
    """

    index: int
    text: str


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished text.

    Attributes:
      index: of the text in its job.
      response: the text.
      ranked: of prompt and response; None unless asked for, or if these are a single token.
    """

    index: int
    response: Response
    ranked: Ranked | None


@dataclasses.dataclass(frozen=True)
class Failed:
    """A job that ends without a result, because the engine ends; the reason is one line."""

    reason: str


Event = Piece | Finished | Failed


@dataclasses.dataclass(eq=False)
class Job:
    """Texts that belong to one request.

    Attributes:
      requests: one for each text. One with max_tokens=0 generates nothing.
      top: number of alternatives of every token to find, for log-probabilities; None for none.
      stream: whether pieces are reported.
      notify: called by the engine's thread with each event; must return at once.
      cancelled: set to True when nobody waits for the result any more.
    """

    requests: tuple[Request, ...]
    top: int | None
    stream: bool
    notify: Callable[[Event], None]
    cancelled: bool = False


_Name = tuple[Job, int]  # a job, and the index of a text in it


class Engine:
    """Generates and scores the texts of jobs in a thread of its own.

    Attributes:
      error: what has ended the thread; None while it runs, and after `stop`.
    """

    def __init__(
        self,
        generator: Generator,
        scorer: OptionScorer,
        queue: int,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """Create an engine; `start` starts it.

        Args:
          generator: generates texts.
          scorer: of the same network.
          queue: the most texts that are generated or wait.
          failed: called when an error has ended the thread.
        """
        self.error: Exception | None = None
        self._generator, self._scorer, self._queue, self._failed = generator, scorer, queue, failed
        self._changed = threading.Condition()
        self._submitted: deque[_Name] = deque()
        self._texts = 0  # submitted and not finished
        self._stopping = False
        # Of the thread alone:
        self._waiting: deque[_Name] = deque()
        self._running: set[_Name] = set()
        self._unranked: list[tuple[_Name, Response]] = []
        self._batch: Batch | None = None
        self._closed = False  # whether no text joins the batch any more
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its current step; jobs that are not finished fail."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    @property
    def running(self) -> bool:
        """Whether jobs are accepted."""
        return not self._stopping

    @property
    def texts(self) -> int:
        """Number of texts that are generated or wait."""
        return self._texts

    def submit(self, job: Job) -> None:
        """Submit a job, whose requests have been checked.

        Raises:
          ApiError: If the queue is full, or the engine has ended.
        """
        count = len(job.requests)
        with self._changed:
            if self._stopping:
                raise ApiError("the server is shutting down", status=503)
            if self._texts + count > self._queue:
                raise ApiError("too many requests are waiting; try again later", status=429)
            self._texts += count
            self._submitted.extend((job, index) for index in range(count))
            self._changed.notify()

    def _run(self) -> None:
        reason = "the server is shutting down"
        try:
            with jax.set_mesh(self._generator.mesh):
                while self._accept():
                    self._turn()
        except Exception as error:  # noqa: BLE001  whatever it is, the jobs are told
            self.error, reason = error, "the server has failed; see its log"
        with self._changed:
            self._stopping = True
            left = {job for job, _ in (*self._submitted, *self._waiting, *self._running)}
            left |= {job for (job, _), _ in self._unranked}
        for job in left:
            job.notify(Failed(reason))
        if self.error is not None:
            self._failed()

    def _accept(self) -> bool:
        """Take what was submitted, and wait for it if there is nothing else to do. Returns whether
        to go on."""
        with self._changed:
            while not (self._submitted or self._stopping or self._busy()):
                self._changed.wait()
            self._waiting.extend(self._submitted)
            self._submitted.clear()
            return not self._stopping

    def _busy(self) -> bool:
        return bool(self._waiting or self._running or self._unranked)

    def _turn(self) -> None:
        """Begin what fits, choose some tokens of all texts, and report them."""
        self._drop_cancelled()
        self._begin()
        if self._batch is not None:
            for name, reader in self._batch.step():
                self._report(name, reader)
        if self._batch is not None and not self._batch.busy:
            self._batch = None  # frees its caches
        self._rank()

    def _drop_cancelled(self) -> None:
        dropped = {name for name in self._running if name[0].cancelled}
        if dropped and self._batch is not None:
            self._batch.drop(dropped)
        self._running -= dropped
        waiting = [name for name in self._waiting if not name[0].cancelled]
        unranked = [pair for pair in self._unranked if not pair[0][0].cancelled]
        left = len(self._waiting) - len(waiting) + len(self._unranked) - len(unranked)
        self._count_finished(len(dropped) + left)
        self._waiting, self._unranked = deque(waiting), unranked

    def _count_finished(self, count: int) -> None:
        with self._changed:
            self._texts -= count

    def _begin(self) -> None:
        """Begin the first texts that wait, until one does not fit."""
        while self._waiting:
            job, index = name = self._waiting[0]
            request = job.requests[index]
            if not request.max_tokens:
                self._finish(name, Response((), "", (), "length"))
            elif not self._joined(name, request):
                return
            else:
                self._running.add(name)
            self._waiting.popleft()

    def _joined(self, name: _Name, request: Request) -> bool:
        """Add a text to the batch, or to a new one; return whether it fits."""
        (text,) = self._generator.texts_of({name: request})
        row = Row(request.prompt, (text,))
        if self._batch is None:
            self._batch, self._closed = self._generator.batch([row], small_reads=True), False
            return True
        if not self._closed and self._batch.fits(row):
            self._batch.add(row)
            return True
        # Else it would keep few rows for as long as texts join it.
        self._closed |= self._batch.outgrown
        return False

    def _report(self, name: _Name, reader: Reader) -> None:
        job, index = name
        if reader.response is not None:
            self._running.remove(name)
            self._finish(name, reader.response)
        elif job.stream:
            job.notify(Piece(index, reader.shown()))

    def _finish(self, name: _Name, response: Response) -> None:
        """Report a finished text, or note that its log-probabilities are missing."""
        job, index = name
        tokens = len(job.requests[index].prompt) + len(response.tokens)
        if job.top is not None and tokens > 1:
            self._unranked.append((name, response))
        else:
            self._count_finished(1)
            job.notify(Finished(index, response, None))

    def _rank(self) -> None:
        """Compute the log-probabilities of the first finished texts, at most as many as a batch
        has; the others wait for the next turn."""
        if not self._unranked:
            return
        top = _program(self._unranked[0])
        some = [pair for pair in self._unranked if _program(pair) == top][: self._generator.texts]
        rows = [(*job.requests[i].prompt, *response.tokens) for (job, i), response in some]
        found = rank_tokens(self._scorer, rows, top)
        for ((job, i), response), ranked in zip(some, found, strict=True):
            self._count_finished(1)
            job.notify(Finished(i, response, ranked))
        done = {name for name, _ in some}
        self._unranked = [pair for pair in self._unranked if pair[0] not in done]


def _program(unranked: tuple[_Name, Response]) -> int:
    """Return the alternatives that are found for a text: few numbers, so that few programs are
    compiled."""
    (job, _), _ = unranked
    return 1 if (job.top or 0) <= 1 else MAX_TOP
