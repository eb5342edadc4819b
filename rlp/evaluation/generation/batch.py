"""A batch of texts that are decoded together, a few tokens at a time. Others may join it.

A batch has B rows: prompts of at most T tokens, with N texts after each. Rows whose texts are
finished are given to the next prompts. A row that is larger than those before it makes the batch
larger, as far as the bound on tokens allows.
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import numpy as np

from models.cache import can_join
from models.transformer import Params
from rlp.engine.sampling import Sampler
from rlp.evaluation.generation.reading import (
    Prompts,
    padded,
    power_above,
    prompt_arrays,
    read_together,
    shared_tokens,
)
from rlp.evaluation.generation.requests import Reader, Request
from rlp.evaluation.generation.text_programs import Choosing, TextPrograms, Texts

STEP = 16  # tokens of every text between two looks of the host
FIRST_SLOTS = 256  # room for the tokens of a text; doubled when it is used up


@dataclasses.dataclass(frozen=True)
class Network:
    """A network as batches use it.

    Attributes:
      programs: its compiled functions.
      weights: its parameters, and its unrolled layers if decoding reads those.
      decode: returns the text of token ids.
      shards: number of devices that split the rows.
      texts: the most texts of a batch.
      tokens: bounds the tokens whose caches a batch holds.
    """

    programs: TextPrograms
    weights: tuple[Params, list[Any] | None]
    decode: Callable[[Sequence[int]], str]
    shards: int
    texts: int
    tokens: int


@dataclasses.dataclass(frozen=True, eq=False)
class Text:
    """A text to generate.

    Attributes:
      name: what it is called in results; hashable.
      request: what is asked for.
      key: [2] uint32, data of the PRNG key of its seed.
    """

    name: Any
    request: Request
    key: np.ndarray

    @property
    def held(self) -> int:
        """The slots that its longest response uses."""
        return -(-self.request.max_tokens // STEP) * STEP


@dataclasses.dataclass(frozen=True)
class Row:
    """A prompt and the texts that it is shared by: a power of two."""

    prompt: tuple[int, ...]
    members: tuple[Text, ...]


def power_below(count: int) -> int:
    """Return the largest power of two up to `count`, at least 1."""
    return 1 << (max(count, 1).bit_length() - 1)


class Batch:
    """Generates the texts of rows with equally many texts each.

    All calls are made under `jax.set_mesh`, by one thread.
    """

    def __init__(self, network: Network, rows: Sequence[Row], small_reads: bool = False) -> None:
        """Create a batch; nothing is computed yet.

        Args:
          network: generates the texts.
          rows: the first rows, at least one; more may be added.
          small_reads: read no more rows than begin, each time with their own length, which compiles
            more programs. Otherwise, all prompts are read with the length of the longest one, and
            a quarter of the rows at a time (at first, all of them), or fewer that begin alike.
        """
        self._network, self._small_reads = network, small_reads
        self._waiting: deque[Row] = deque()
        self._places: list[_Place] = []
        self._state: tuple[Prompts, Texts] | None = None
        self._count = len(rows[0].members)  # N
        self._length = self._most = self._ends = 0  # T, most slots of a text, most ids that end it
        self._sampled = self._top_k = self._top_p = False
        for row in rows:
            self.add(row)
        self._size = network.shards  # B
        self._written: list[int] = []  # number of the call that last wrote each block of slots
        self._calls = 0

    @property
    def busy(self) -> bool:
        """Whether any text is not finished."""
        return bool(self._waiting) or self._used > 0

    def fits(self, row: Row) -> bool:
        """Return whether a row can begin at the next step, as far as the bounds are concerned."""
        possible = self._possible(
            max(self._length, padded(len(row.prompt))),
            max(self._most, *(text.held for text in row.members)),
        )
        used = self._used + len(self._waiting)
        return len(row.members) == self._count and max(self._size, used + 1) <= possible

    @property
    def outgrown(self) -> bool:
        """Whether a new batch of the texts that go on could have more rows, because those that made
        this one large are finished."""
        rows = [*self._waiting, *(place.row for place in self._places if place.open.any())]
        if not rows:
            return False
        length = max(padded(len(row.prompt)) for row in rows)
        most = max(text.held for row in rows for text in row.members)
        return self._possible(length, most) > self._possible(self._length, self._most)

    def add(self, row: Row) -> None:
        """Add a row, which begins when there is room for it."""
        requests = [text.request for text in row.members]
        self._length = max(self._length, padded(len(row.prompt)))
        self._most = max(self._most, *(text.held for text in row.members))
        if ends := max(len(request.ends) for request in requests):
            self._ends = max(self._ends, power_above(ends))  # so that few programs are compiled
        self._sampled |= any(request.sampling.temperature for request in requests)
        self._top_k |= any(request.sampling.top_k for request in requests)
        self._top_p |= any(request.sampling.top_p < 1 for request in requests)
        self._waiting.append(row)

    def drop(self, names: Collection[Any]) -> None:
        """End texts that have begun, without a response."""
        for place in self._places:
            for n, text in enumerate(place.row.members):
                place.open[n] &= text.name not in names

    def step(self) -> list[tuple[Any, Reader]]:
        """Choose up to `STEP` tokens of every text; return those that have new ones by name."""
        programs = self._network.programs
        state, self._state = self._state, None  # the arrays of the old state are donated
        state = self._begun() if state is None else state
        prompts, texts = self._refilled(*self._resized(*state))
        # One program at a time: on a CPU, several on many devices may wait for one another.
        prompts, texts = jax.block_until_ready(self._refilled(prompts, texts))
        if not self._used:
            self._state = prompts, texts
            return []
        block, prompts, texts = self._free_block(prompts, texts)
        self._written[block] = self._calls
        texts, chosen = programs.decode(
            *self._network.weights, prompts, texts, self._choosing(), block * STEP, steps=STEP
        )
        self._state = prompts, texts
        self._calls += 1
        return self._collected(jax.device_get(chosen))

    @property
    def _used(self) -> int:
        """Number of rows with open texts."""
        return sum(bool(place.open.any()) for place in self._places)

    def _possible(self, length: int, most: int) -> int:
        """Return the most rows with prompts and texts of these lengths."""
        network = self._network
        held = network.tokens // (length + self._count * most)
        return network.shards * power_below(
            min(held, network.texts // self._count) // network.shards
        )

    def _rows_for(self, rows: int) -> int:
        """Return the rows of a batch that has `rows` to generate at a time, if possible: a power of
        two on every device, so that few programs are compiled."""
        shards = self._network.shards
        wanted = shards * power_above(max(1, -(-rows // shards)))
        return min(self._possible(self._length, self._most), wanted)

    def _begun(self) -> tuple[Prompts, Texts]:
        self._size = self._rows_for(len(self._waiting))
        self._written = [-1] * (min(FIRST_SLOTS, self._most) // STEP)
        self._places, prompts = self._read_next(self._size, self._size)
        self._size = len(self._places)
        slots = len(self._written) * STEP
        return prompts, self._network.programs.begin(prompts, count=self._count, slots=slots)

    def _resized(self, prompts: Prompts, texts: Texts) -> tuple[Prompts, Texts]:
        """Return the state with more or longer rows, if those that wait need them."""
        self._size = max(self._size, self._rows_for(self._used + len(self._waiting)))
        if prompts.trunk.tokens.shape == (self._size, self._length):
            return prompts, texts
        more = self._size - len(self._places)
        self._places += [_Place.spare(self._count) for _ in range(more)]
        return self._with_room(prompts, texts)

    def _with_room(self, prompts: Prompts, texts: Texts) -> tuple[Prompts, Texts]:
        """Return the state with as many rows, tokens and slots as the batch has now."""
        sizes = {"rows": self._size, "length": self._length, "slots": len(self._written) * STEP}
        return self._network.programs.resized(prompts, texts, **sizes)

    def _next_place(self) -> "_Place":
        """Return the next row to begin."""
        row = self._waiting.popleft()
        readers = [Reader(text.request, self._network.decode) for text in row.members]
        return _Place(row, readers, self._calls, np.ones(self._count, bool))

    def _read_next(self, free: int, most: int) -> tuple[list["_Place"], Prompts]:
        """Read the prompts of the next rows, at most `free`, and return as many as `most` or fewer
        places, some of which may be spare."""
        network, rows, size = self._network, most, self._length
        most = min(free, most, len(self._waiting))
        prompts = [row.prompt for row in itertools.islice(self._waiting, most)]
        joins = can_join(network.programs.model)
        count = read_together(prompts) if joins else most
        if self._small_reads or count < most:
            rows = network.shards * power_above(-(-count // network.shards))
        if self._small_reads:
            size = padded(max(map(len, prompts[:count])))
        begun = [self._next_place() for _ in range(count)]
        begun += [_Place.spare(self._count) for _ in range(rows - count)]
        prompts = [*prompts[:count], *prompts[:1] * (rows - count)]  # what spare rows have is any
        tokens, length = prompt_arrays(prompts, size)
        shared = shared_tokens(prompts, network.shards) if joins else 0
        sharing = {"shared": shared, "shards": network.shards}
        return begun, network.programs.read(network.weights[0], tokens, length, **sharing)

    def _refilled(self, prompts: Prompts, texts: Texts) -> tuple[Prompts, Texts]:
        """Give rows without open texts to waiting ones, once there are enough of them."""
        free = [at for at, place in enumerate(self._places) if not place.open.any()]
        most = self._network.shards * max(1, self._size // self._network.shards // 4)
        if len(free) < min(most, len(self._waiting)):
            return prompts, texts
        while self._waiting and free:
            begun, read = self._read_next(len(free), most)
            used, free = free[: len(begun)], free[len(begun) :]
            rows = np.full(len(begun), self._size, np.int32)  # beyond the last row: nowhere
            rows[: len(used)] = used
            prompts, texts = self._network.programs.put(prompts, texts, read, rows)
            for at, place in zip(used, begun, strict=False):
                self._places[at] = place
        return prompts, texts

    def _free_block(self, prompts: Prompts, texts: Texts) -> tuple[int, Prompts, Texts]:
        """Return a block of slots that no open text uses, and the state with room for it."""
        oldest = min(place.begun for place in self._places if place.open.any())
        free = [block for block, call in enumerate(self._written) if call < oldest]
        if not free:
            free = [len(self._written)]
            # The oldest text has tokens in every block, and is shorter than `most`.
            self._written += [-1] * min(len(self._written), self._most // STEP - len(self._written))
            prompts, texts = self._with_room(prompts, texts)
        return free[0], prompts, texts

    def _choosing(self) -> Choosing:
        """Return the settings of all texts, [B, N]."""

        def each(value: Callable[[Text], Any], spare: Any, dtype: Any) -> np.ndarray:
            """Return an array of values of texts."""
            rows = [
                list(map(value, place.row.members)) or [spare] * self._count
                for place in self._places
            ]
            return np.array(rows, dtype)

        pad = [-1] * self._ends
        sampling = lambda text: text.request.sampling
        sampler = Sampler(
            each(lambda text: sampling(text).temperature, 0, np.float32),
            each(lambda text: sampling(text).top_k, 0, np.int32) if self._top_k else None,
            each(lambda text: sampling(text).top_p, 1, np.float32) if self._top_p else None,
        )
        key = next(place.row.members[0].key for place in self._places if place.row.members)
        taken = [
            [len(reader.tokens) for reader in place.readers] or [0] * self._count
            for place in self._places
        ]
        return Choosing(
            open=np.stack([place.open for place in self._places]),
            taken=np.array(taken, np.int32),
            limit=each(lambda text: text.request.max_tokens, 0, np.int32),
            ends=each(lambda text: [*text.request.ends, *pad][: self._ends], pad, np.int32),
            key=each(lambda text: text.key, key, np.uint32),
            sampler=sampler if self._sampled else None,
        )

    def _collected(self, chosen: Any) -> list[tuple[Any, Reader]]:
        """Add tokens to their texts, and return these."""
        found: list[tuple[Any, Reader]] = []
        for at, place in enumerate(self._places):
            for n, reader in enumerate(place.readers):
                if not place.open[n]:
                    continue
                new = slice(chosen.taken[at, n] - len(reader.tokens))
                reader.add(chosen.tokens[at, n, new].tolist(), chosen.logprobs[at, n, new].tolist())
                place.open[n] = reader.response is None
                found.append((place.row.members[n].name, reader))
        return found


@dataclasses.dataclass
class _Place:
    """A row of the batch.

    Attributes:
      row: whose texts it holds.
      readers: of its texts; none if the row is spare.
      begun: number of the call of `decode` with which they began.
      open: [N] bool, texts that go on.
    """

    row: Row
    readers: list[Reader]
    begun: int
    open: np.ndarray

    @classmethod
    def spare(cls, count: int) -> "_Place":
        """Return a row without texts."""
        return cls(Row((0,), ()), [], 0, np.zeros(count, bool))
