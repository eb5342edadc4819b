"""Use a trained model from Python: sample thoughts and text, and compute log-likelihoods.

model = rlp.load("runs/demo/rlp")
model.think("Mia faces north .", n=4, target=" south")
model.generate("Mia faces")
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from configs import default
from rlp.capacity import device_memory
from rlp.evaluation.generation.requests import Sampling, check_sampling
from rlp.evaluation.generation.single import continuation, thoughts_after
from rlp.evaluation.likelihood import log_likelihood
from rlp.run import memory_check, prompts
from rlp.run.opened_model import Opened, describe, one_device, open_model
from rlp.run.results import Run
from rlp.run.sampled_thoughts import Thought, Thoughts
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import THINK_OPEN


class Model:
    """A trained model on one device, as returned by `load`.

    Attributes:
      name: The name that it was loaded by.
      step: The step of its checkpoint; None for a model that is not from a run.
      config: The config of its run.
      tokenizer: Its tokenizer, `rlp.tokenizers.tokenizer.Tokenizer`.

    Example::

        model = rlp.load("runs/demo/rlp")
        print(model.generate("Mia faces", length=16))
    """

    def __init__(self, opened: Opened) -> None:
        """Create a model from one that is opened on one device; use `load` instead."""
        self._opened = opened
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
        """Sample thoughts after a prompt, and score the text that follows.

        Args:
          prompt: The text before the thoughts.
          n: The number of thoughts.
          target: The text after the thoughts, whose log-likelihood is computed with and without
            each thought; "" for none.
          length: The most tokens of a thought, including its closing tag; None for the run's value.
          temperature: The sampling temperature, 0 for greedy; None for the run's value.
          seed: The random seed.
          chat: Format the prompt as a user message with the model's chat template.
          system: With `chat`, the system message.

        Returns:
          The thoughts, with log-likelihoods and gains if there is a target.

        Raises:
          UserError: If the prompt is empty or cannot be encoded, if the model has no chat template,
            or if `n` thoughts do not fit in memory.

        Example::

            thoughts = model.think("Mia faces north .", n=4, target=" south")
            thoughts.mean_gain, thoughts[0].text
        """
        method = self._opened.method
        settings = method.settings
        length = settings.thought_length if length is None else length
        temperature = settings.temperature if temperature is None else temperature
        self._check(length, Sampling(temperature), n=n)
        settings = dataclasses.replace(settings, temperature=temperature, thought_length=length)
        text = self._text(prompt, chat, system)
        if chat:
            if text.rstrip().endswith(THINK_OPEN):
                raise UserError(
                    "the chat template already opens a thought; use generate instead of think (on "
                    "the command line, leave out --think)"
                )
            settings = dataclasses.replace(settings, prompt=())  # the template replaces it
            before, after = prompts.split_tokens(self._opened, text, target)
        else:
            before, after = prompts.prompt_and_target(self._opened, text, target)
        sampled, without = thoughts_after(
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
            for thought in sampled
        ]
        return Thoughts(prompt, target, thoughts, without)

    def generate(
        self,
        prompt: str,
        length: int = 128,
        *,
        temperature: float | None = None,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
        chat: bool = False,
        system: str = "",
    ) -> str:
        """Generate text after a prompt, until the end of the text or turn.

        Args:
          prompt: The text before.
          length: The most tokens to generate.
          temperature: The sampling temperature, 0 for greedy; None for the run's value.
          top_p: Sample among the likeliest tokens that have this share of the probability (of what
            `top_k` keeps); 1 for all.
          top_k: Sample among this number of the likeliest tokens; 0 for all.
          seed: The random seed.
          chat: Format the prompt as a user message with the model's chat template.
          system: With `chat`, the system message.

        Returns:
          The generated text, without the prompt and the end token.

        Raises:
          UserError: As in `think`.
        """
        pieces = self.stream(
            prompt,
            length,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            seed=seed,
            chat=chat,
            system=system,
        )
        return "".join(pieces)

    def stream(
        self,
        prompt: str,
        length: int = 128,
        *,
        temperature: float | None = None,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int = 0,
        chat: bool = False,
        system: str = "",
        keep_end: bool = False,
    ) -> Iterator[str]:
        """Generate text as `generate` does, and yield it in pieces.

        Args:
          prompt: As in `generate`.
          length: As in `generate`.
          temperature: As in `generate`.
          top_p: As in `generate`.
          top_k: As in `generate`.
          seed: As in `generate`.
          chat: As in `generate`.
          system: As in `generate`.
          keep_end: Include the text of the end token.

        Yields:
          The pieces of the text.

        Raises:
          UserError: As in `think`.
        """
        opened, method = self._opened, self._opened.method
        temperature = method.settings.temperature if temperature is None else temperature
        self._check(length, Sampling(temperature, top_p, top_k))
        text = self._text(prompt, chat, system)
        ids = self.tokenizer.encode(text) if chat else prompts.prompt_ids(opened, text)
        ends = prompts.stop_ids(opened, chat)
        tokens = continuation(
            method.model,
            opened.params,
            ids,
            length,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            key=jax.random.key(seed),
            banned=prompts.unused_ids(opened),
            ends=ends,
        )
        return self._decoded(ids, (token for token in tokens if keep_end or token not in ends))

    def log_likelihood(self, prompt: str, target: str) -> float:
        """Compute log p(target | prompt), without a thought.

        Tokens that cannot occur in a text, such as the thinking tags, have probability 0.

        Args:
          prompt: The text before.
          target: The text after.

        Returns:
          The log-likelihood in nats, summed over the tokens of the target.

        Raises:
          UserError: If a text cannot be encoded, or if the prompt is empty and the tokenizer has no
            BOS token.
        """
        before, after = prompts.prompt_and_target(self._opened, prompt, target)
        return log_likelihood(self._opened.method, self._opened.params, before, after)

    def __repr__(self) -> str:
        kind = "a model" if self.step is None else f"step {self.step}"
        return "\n".join([f"{self.name}, {kind}", *describe(self._opened)])

    def _decoded(self, before: Sequence[int], tokens: Iterator[int]) -> Iterator[str]:
        """Yield the text of tokens, decoded together with the prompt.

        Decoded separately, the text would lose the space before its first word.
        """
        ids = list(before)
        shown = len(self.tokenizer.decode(ids))
        for token in tokens:
            ids.append(token)
            text = self.tokenizer.decode(ids)
            if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # else the character is incomplete
                yield text[shown:]
                shown = len(text)
        if rest := self.tokenizer.decode(ids)[shown:]:
            yield rest

    def _text(self, prompt: str, chat: bool, system: str) -> str:
        if system and not chat:
            raise UserError("system is the first message of a chat; add chat=True")
        return prompts.chat_prompt(self._opened, prompt, system) if chat else prompt

    def _check(self, length: int, sampling: Sampling, n: int = 1) -> None:
        """Refuse invalid numbers, and sampling that does not fit in memory."""
        for name, value in (("n", n), ("length", length)):
            if value < 1:
                raise UserError(f"{name}={value}; it must be at least 1")
        check_sampling(sampling)
        self.check_memory({"n": n, "length": length})

    def check_memory(self, sizes: Mapping[str, int]) -> None:
        """Refuse sampling that does not fit in memory; see `memory_check.check_sampling`. The sizes
        are the number of thoughts and the most tokens of each."""
        model, mesh = self._opened.method.model, self._opened.mesh
        limits = device_memory.limits(mesh.local_devices)
        thoughts, length = sizes.values()
        memory_check.check_sampling(model, mesh, thoughts, length, sizes, limits)


def load(
    source: "str | os.PathLike[str] | Run",
    *,
    bos: str = "",
    device: jax.Device | None = None,
) -> Model:
    """Load a trained model.

    Args:
      source: A `Run`; a run folder, "<folder>@<step>" or "<folder>@best"; a model in the Hugging
        Face format, by its folder or its name on the hub; or a GGUF file.
      bos: The BOS token, "none" for no BOS; "" for the tokenizer's default.
      device: The device for the parameters; None for the first JAX device.

    Returns:
      The model.

    Raises:
      UserError: If the source does not exist or cannot be used, or does not fit in memory.

    Example::

        model = rlp.load("runs/demo/rlp@best")
    """
    name = str(source.workdir) if isinstance(source, Run) else os.fspath(source)
    return Model(open_model(name, default.get_config(), one_device(device), bos))
