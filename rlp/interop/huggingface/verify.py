"""Verify with transformers that an exported folder computes the same as its checkpoint."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig
from models.transformer import Params, bind
from models.tree import Trunk, forward
from rlp.evaluation.generation.single import continuation
from rlp.runtime.errors import UserError

TOLERANCE = 2e-4  # relative to the range of the logits; both sides use float32


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt that both implementations continue.

    Attributes:
      text: the text that transformers tokenizes.
      ids: the ids of our tokenizer.
      messages: messages of a chat, which transformers renders instead of the text; or empty.
    """

    text: str
    ids: Sequence[int]
    messages: Sequence[dict[str, str]] = ()


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The results of transformers and of this implementation for one prompt.

    Attributes:
      their_ids: ids of the prompt from the exported tokenizer.
      our_ids: ids of the prompt from our tokenizer.
      error: maximum difference of the logits, relative to their range.
      agreed: number of equal tokens at the beginning of the greedy continuations.
      asked: number of tokens of the longer continuation.
      tied: where the continuations diverge, the logits of the two most likely tokens differ by less
        than the tolerance, so that either token may follow.
      stops: the id at which each continuation stopped, transformers first; None if it did not stop.
    """

    their_ids: list[int]
    our_ids: list[int]
    error: float
    agreed: int
    asked: int
    tied: bool
    stops: tuple[int | None, int | None]

    @property
    def same_ids(self) -> bool:
        """Whether both tokenizers give the same ids."""
        return self.their_ids == self.our_ids

    @property
    def same_text(self) -> bool:
        """Whether the logits and the greedy continuations agree."""
        return self.error <= TOLERANCE and (self.agreed == self.asked or self.tied)


class TransformersModel:
    """An exported folder, loaded by transformers.

    Attributes:
      template: whether its tokenizer has a chat template.
      ends: the ids at which `generate` stops.
      corrected: what was corrected in the model; "" if nothing was.
    """

    def __init__(self, folder: Path) -> None:
        """Load a folder.

        Raises:
          UserError: If transformers or torch is not installed, or cannot load the folder.
        """
        try:
            import torch
            import transformers
        except ImportError as error:
            raise UserError("--verify needs torch and transformers: pip install torch") from error
        try:
            self._model = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                attn_implementation="eager",
                local_files_only=True,
                trust_remote_code=False,
            ).eval()
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"transformers cannot load {folder}: {error}") from error
        self.corrected = _follow_step_limits(self._model)
        self._torch = torch
        self.template: bool = self._tokenizer.chat_template is not None
        ends = self._model.generation_config.eos_token_id
        self.ends: list[int] = [ends] if isinstance(ends, int) else list(ends or [])
        # Greedy decoding without the penalties of the model's generation config.
        self._model.generation_config = transformers.GenerationConfig(
            eos_token_id=self.ends or None, pad_token_id=0
        )

    def ids(self, prompt: Prompt) -> list[int]:
        """Return the ids of a prompt from the exported tokenizer."""
        if prompt.messages:
            return list(
                self._tokenizer.apply_chat_template(
                    list(prompt.messages), add_generation_prompt=True, return_dict=False
                )
            )
        return list(self._tokenizer(prompt.text)["input_ids"])

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Return the logits [S, V] of ids [S]."""
        with self._torch.no_grad():
            return self._model(self._torch.tensor([list(ids)])).logits[0].numpy()

    def continuation(self, ids: Sequence[int], tokens: int) -> list[int]:
        """Return the greedy continuation of ids, including the id at which `generate` stops."""
        inputs = self._torch.tensor([list(ids)])
        with self._torch.no_grad():
            outputs = self._model.generate(
                inputs,
                attention_mask=self._torch.ones_like(inputs),
                do_sample=False,
                max_new_tokens=tokens,
            )
        return outputs[0, len(ids) :].tolist()


def _follow_step_limits(model: Any) -> str:
    """Let the Mamba-2 layers of Nemotron-H follow config.json, and return what was changed.

    transformers 5.23 bounds their steps from below by `time_step_min`, which is meant for the
    initialization, in place of `time_step_limit`, and only where it computes several tokens at once
    (https://github.com/huggingface/transformers/pull/48989).
    """
    config = model.config
    if config.model_type != "nemotron_h":
        return ""
    limits = tuple(map(float, config.time_step_limit))
    mixers = [module for module in model.modules() if hasattr(module, "time_step_limit")]
    ignored = {tuple(mixer.time_step_limit) for mixer in mixers} - {limits}
    for mixer in mixers:
        mixer.time_step_limit = limits
    if not ignored:
        return ""
    return (
        f"transformers ignores time_step_limit={list(limits)} of config.json and uses "
        f"{list(*ignored)}; it is compared with the limits of config.json"
    )


def compare(
    theirs: TransformersModel,
    model: ModelConfig,
    params: Params,
    prompts: Sequence[Prompt],
    tokens: int,
    ends: Sequence[int],
) -> list[Comparison]:
    """Compare ids, logits and greedy continuations of transformers and of this implementation.

    Args:
      theirs: the export, loaded by transformers.
      model: our model config.
      params: float32 parameters, rounded like those of the export.
      prompts: prompts to continue.
      tokens: maximum tokens of a continuation.
      ends: ids at which our sampler stops.
    """
    exact = dataclasses.replace(model, compute_dtype="float32")
    return [_compare(theirs, exact, params, prompt, tokens, tuple(ends)) for prompt in prompts]


def _compare(
    theirs: TransformersModel,
    model: ModelConfig,
    params: Params,
    prompt: Prompt,
    tokens: int,
    ends: tuple[int, ...],
) -> Comparison:
    ids = list(prompt.ids)
    expected = theirs.logits(ids)
    position = jnp.arange(len(ids), dtype=jnp.int32)[None]
    trunk = Trunk(jnp.asarray([ids]), jnp.ones_like(position), position)
    logits = np.asarray(jax.jit(_logits, static_argnums=0)(model, params, trunk))[0]
    spread = float(expected.max() - expected.min())
    their_tokens = theirs.continuation(ids, tokens)
    our_tokens = list(continuation(model, params, ids, tokens, ends=ends))
    same = [a == b for a, b in zip(their_tokens, our_tokens, strict=False)]
    agreed = next((i for i, equal in enumerate(same) if not equal), len(same))
    tied = False
    if agreed < len(same):
        second, first = np.sort(theirs.logits(ids + our_tokens[:agreed])[-1])[-2:]
        tied = bool(first - second <= TOLERANCE * spread)
    return Comparison(
        their_ids=theirs.ids(prompt),
        our_ids=ids,
        error=float(np.abs(logits - expected).max()) / spread,
        agreed=agreed,
        asked=max(len(their_tokens), len(our_tokens)),
        tied=tied,
        stops=(_stop(their_tokens, theirs.ends), _stop(our_tokens, ends)),
    )


def _stop(ids: Sequence[int], ends: Sequence[int]) -> int | None:
    """Return the id that ends a continuation, if it ends with one of `ends`."""
    return ids[-1] if ids and ids[-1] in ends else None


def _logits(model: ModelConfig, params: Params, trunk: Trunk) -> jax.Array:
    bound = bind(model, params)
    return bound.logits(forward(bound, trunk))
