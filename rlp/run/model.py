"""A trained network in Python: thoughts, text and log-likelihoods from it.

model = load("runs/demo/rlp")
model.think("Mia faces north .", n=4, target=" south")
model.generate("Mia faces")
"""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import jax

from configs import default
from rlp.capacity import device_memory
from rlp.evaluation.generation import continuation, thoughts_after
from rlp.evaluation.likelihood import log_likelihood
from rlp.report.inline import Column, html_table, text_table
from rlp.run import memory_check, prompts
from rlp.run.opened_model import Opened, describe, open_model
from rlp.run.results import Run
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import THINK_OPEN


@dataclasses.dataclass(frozen=True)
class Thought:
    """A thought at the end of a prompt.

    Attributes:
      text: between the tags.
      tokens: how many it has, without the tags.
      closed: the model closed it by itself, within the limit.
      log_likelihood: of the target after it, nats; None without a target.
      gain: nats by which it raises the target's log-likelihood; None without a target.
    """

    text: str
    tokens: int
    closed: bool
    log_likelihood: float | None
    gain: float | None


class Thoughts(Sequence[Thought]):
    """Thoughts that a model had at the end of one prompt; shows as a table.

    Attributes:
      prompt, target: as they were given.
      log_likelihood: of the target without a thought, nats; None without a target.
    """

    def __init__(
        self, prompt: str, target: str, found: Sequence[Thought], log_likelihood: float | None
    ) -> None:
        """See the attributes; `found` are the thoughts."""
        self.prompt, self.target, self.log_likelihood = prompt, target, log_likelihood
        self._found = tuple(found)

    @overload
    def __getitem__(self, place: int) -> Thought: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Thought]: ...
    def __getitem__(self, place: int | slice) -> Thought | Sequence[Thought]:
        return self._found[place]

    def __len__(self) -> int:
        return len(self._found)

    @property
    def gains(self) -> list[float]:
        """Nats by which each thought raises the target's log-likelihood; [] without a target."""
        return [thought.gain for thought in self if thought.gain is not None]

    @property
    def mean_gain(self) -> float | None:
        """The mean of `gains`; None without a target."""
        return math.fsum(self.gains) / len(self) if self.gains else None

    def __repr__(self) -> str:
        return f"{text_table(self._columns())}\n{self._summary()}"

    def _repr_html_(self) -> str:
        return html_table(self._columns(), self._summary())

    def _columns(self) -> list[Column]:
        columns = [
            Column("tokens", [str(thought.tokens) for thought in self]),
            Column(
                "closed",
                ["yes" if thought.closed else "no" for thought in self],
                meaning="by the model itself, within the limit of length",
            ),
            Column("thought", [thought.text for thought in self], text=True),
        ]
        if self.log_likelihood is None:
            return columns
        scored = [(t.gain or 0.0, t.log_likelihood or 0.0) for t in self]
        meaning = "of the target after the thought, nats"
        return [
            Column("gain", [f"{gain:+.3f}" for gain, _ in scored], meaning="nats"),
            Column("log p", [f"{after:.3f}" for _, after in scored], meaning=meaning),
            *columns,
        ]

    def _summary(self) -> str:
        if self.log_likelihood is None:
            return f"{len(self)} thoughts after {self.prompt!r}"
        return (
            f"{self.target!r} after {self.prompt!r}: log p without a thought "
            f"{self.log_likelihood:.3f} nats, mean gain {self.mean_gain:+.3f}"
        )


class Model:
    """A trained network, on one device.

    Attributes:
      name: as it was given.
      step: of its checkpoint; None for a model that is not of a run.
      config: of its run.
      tokenizer: text to ids and back, `rlp.tokenizers.tokenizer.Tokenizer`.
    """

    def __init__(self, opened: Opened, device: jax.Device) -> None:
        """A model that has been opened on a device; `load` does it."""
        self._opened, self._device = opened, device
        self.name, self.step, self.config = opened.name, opened.step, opened.config
        self.tokenizer: Any = opened.method.tokenizer

    def think(
        self,
        prompt: str,
        n: int = 4,
        target: str = "",
        *,
        length: int | None = None,
        temperature: float | None = None,
        seed: int = 0,
        chat: bool = False,
        system: str = "",
    ) -> Thoughts:
        """Samples thoughts at the end of a prompt, and scores the text that follows.

        Args:
          prompt: the text before.
          n: how many thoughts.
          target: the text after, whose log-likelihood is measured with and without each thought; ""
            for none.
          length: most tokens of a thought, its closing tag included; None as the run has it.
          temperature: of the draws, 0 for the likeliest; None as the run has it.
          seed: of the draws.
          chat: the prompt is a message of the user, put into the model's chat template.
          system: with `chat`, the message before it.

        Raises:
          UserError: the prompt is empty or holds what the tokenizer cannot write, there is no chat
            template, or so many thoughts do not fit into memory.
        """
        method = self._opened.method
        settings = method.settings
        length = settings.thought_length if length is None else length
        temperature = settings.temperature if temperature is None else temperature
        self._check(length, temperature, n=n)
        settings = dataclasses.replace(settings, temperature=temperature, thought_length=length)
        text = self._text(prompt, chat, system)
        if chat:
            if text.rstrip().endswith(THINK_OPEN):
                raise UserError(
                    "the chat template opens a thought by itself; generate a text instead (on the "
                    "command line, leave out --think)"
                )
            settings = dataclasses.replace(settings, prompt=())  # it begins with its template
            before, after = prompts.split_tokens(self._opened, text, target)
        else:
            before, after = prompts.prompt_and_target(self._opened, text, target)
        found, without = thoughts_after(
            dataclasses.replace(method, settings=settings),
            self._opened.params,
            before,
            after,
            n,
            jax.random.key(seed),
        )
        thoughts = [
            Thought(
                text=self.tokenizer.decode(thought.words),
                tokens=len(thought.words),
                closed=thought.closed,
                log_likelihood=thought.reasoned,
                gain=None
                if thought.reasoned is None or without is None
                else thought.reasoned - without,
            )
            for thought in found
        ]
        return Thoughts(prompt, target, thoughts, without)

    def generate(
        self,
        prompt: str,
        length: int = 128,
        *,
        temperature: float | None = None,
        seed: int = 0,
        chat: bool = False,
        system: str = "",
    ) -> str:
        """The text that the model writes after a prompt, up to the end of its text or turn.

        Args:
          prompt, temperature, seed, chat, system: as of `think`.
          length: most tokens.

        Raises:
          UserError: as `think` does.
        """
        pieces = self.stream(
            prompt, length, temperature=temperature, seed=seed, chat=chat, system=system
        )
        return "".join(pieces)

    def stream(
        self,
        prompt: str,
        length: int = 128,
        *,
        temperature: float | None = None,
        seed: int = 0,
        chat: bool = False,
        system: str = "",
        keep_end: bool = False,
    ) -> Iterator[str]:
        """The text of `generate` in pieces, as they come; with `keep_end`, the token that ends it
        included."""
        opened, method = self._opened, self._opened.method
        temperature = method.settings.temperature if temperature is None else temperature
        self._check(length, temperature)
        text = self._text(prompt, chat, system)
        ids = self.tokenizer.encode(text) if chat else prompts.prompt_ids(opened, text)
        ends = prompts.stop_ids(opened, chat)
        tokens = continuation(
            method.model,
            opened.params,
            ids,
            length,
            temperature=temperature,
            key=jax.random.key(seed),
            banned=tuple(range(method.tokenizer.vocab_size, method.model.vocab_size)),
            ends=ends,
        )
        return self._decoded(ids, (token for token in tokens if keep_end or token not in ends))

    def log_likelihood(self, prompt: str, target: str) -> float:
        """log p(target | prompt) in nats, without a thought, over the tokens that text can hold.

        Raises:
          UserError: the prompt is empty where the tokenizer puts nothing before a text, or a text
            holds what the tokenizer cannot write.
        """
        before, after = prompts.prompt_and_target(self._opened, prompt, target)
        return log_likelihood(self._opened.method, self._opened.params, before, after)

    def __repr__(self) -> str:
        return "\n".join([f"{self.name}, {self._stands}", *describe(self._opened)])

    @property
    def _stands(self) -> str:
        return "a model" if self.step is None else f"step {self.step}"

    def _decoded(self, before: Sequence[int], tokens: Iterator[int]) -> Iterator[str]:
        """The text of tokens as they come, decoded behind the prompt: alone, what follows would
        lose the space before its first word."""
        ids = list(before)
        shown = len(self.tokenizer.decode(ids))
        for token in tokens:
            ids.append(token)
            text = self.tokenizer.decode(ids)
            if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # the next may complete a character
                yield text[shown:]
                shown = len(text)
        if rest := self.tokenizer.decode(ids)[shown:]:
            yield rest

    def _text(self, prompt: str, chat: bool, system: str) -> str:
        if system and not chat:
            raise UserError("system is the first message of a chat; add chat=True")
        return prompts.chat_prompt(self._opened, prompt, system) if chat else prompt

    def _check(self, length: int, temperature: float, n: int = 1) -> None:
        """Refuses numbers that mean nothing, and what does not fit into memory."""
        for name, value in (("n", n), ("length", length)):
            if value < 1:
                raise UserError(f"{name}={value}; it must be at least 1")
        if not 0 <= temperature < math.inf:
            raise UserError(f"temperature={temperature}; it must be 0 or a finite number above it")
        self.check_memory({"n": n, "length": length})

    def check_memory(self, sizes: Mapping[str, int]) -> None:
        """Refuses to sample what does not fit; `sizes` as of `memory_check.check_sampling`."""
        limits = device_memory.limits([self._device])
        memory_check.check_sampling(self._opened.method, sizes, limits)


def load(
    source: "str | os.PathLike[str] | Run",
    *,
    bos: str = "",
    device: jax.Device | None = None,
) -> Model:
    """Opens a trained network.

    Args:
      source: a run, as its object or its folder, "<folder>@<step>" or "<folder>@best"; a model in
        the Hugging Face format, its folder or its name on the hub; a GGUF file.
      bos: the token before every text, "none" for nothing; "" for what its tokenizer puts there.
      device: where its parameters are to be; None for the first that JAX has.

    Raises:
      UserError: there is no such thing, or it cannot be used.
    """
    name = str(source.workdir) if isinstance(source, Run) else os.fspath(source)
    device = jax.devices()[0] if device is None else device
    return Model(open_model(name, default.get_config(), device, bos), device)
