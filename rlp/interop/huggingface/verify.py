"""Does an exported folder compute what the checkpoint does? transformers is asked."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from models.config import ModelConfig
from models.transformer import Params, bind
from models.tree import Trunk, forward
from rlp.evaluation.generation import continuation
from rlp.runtime.errors import UserError

TOLERANCE = 2e-4  # of the range of the logits, float32 on both sides


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What both are asked to continue.

    Attributes:
      text: for transformers to tokenise.
      ids: ours.
      messages: of a chat, which transformers renders in place of the text; empty for a text.
    """

    text: str
    ids: Sequence[int]
    messages: Sequence[dict[str, str]] = ()


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One prompt, by transformers and by us.

    Attributes:
      their_ids: of the prompt, by the exported tokenizer.
      our_ids: the same by ours.
      error: largest difference of logits, as a share of their range.
      agreed: tokens of the greedy continuation that are the same.
      asked: tokens of the longer continuation.
      tied: the two likeliest tokens are nearer than the tolerance where the continuations part, so
        either may follow.
      stops: the id at which each of them stopped, transformers first; None for one that did not.
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
        """Whether both read the prompt alike."""
        return self.their_ids == self.our_ids

    @property
    def same_text(self) -> bool:
        """Whether both go on alike."""
        return self.error <= TOLERANCE and (self.agreed == self.asked or self.tied)


class Theirs:
    """An exported folder, as transformers loads it.

    Attributes:
      template: whether its tokenizer has a chat template.
      ends: the ids at which `generate` stops.
    """

    def __init__(self, folder: Path) -> None:
        """Loads a folder.

        Raises:
          UserError: transformers or torch are not there, or do not load the folder.
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
            raise UserError(f"transformers does not load {folder}: {error}") from error
        self._torch = torch
        self.template: bool = self._tokenizer.chat_template is not None
        ends = self._model.generation_config.eos_token_id
        self.ends: list[int] = [ends] if isinstance(ends, int) else list(ends or [])
        # Greedy means the likeliest token: no penalties of the model's own.
        self._model.generation_config = transformers.GenerationConfig(
            eos_token_id=self.ends or None, pad_token_id=0
        )

    def ids(self, prompt: Prompt) -> list[int]:
        """The ids of a prompt by the exported tokenizer."""
        if prompt.messages:
            return list(
                self._tokenizer.apply_chat_template(
                    list(prompt.messages), add_generation_prompt=True, return_dict=False
                )
            )
        return list(self._tokenizer(prompt.text)["input_ids"])

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits [S, V] of ids [S]."""
        with self._torch.no_grad():
            return self._model(self._torch.tensor([list(ids)])).logits[0].numpy()

    def continuation(self, ids: Sequence[int], tokens: int) -> list[int]:
        """The greedy continuation of ids, up to and with the id at which `generate` stops."""
        given = self._torch.tensor([list(ids)])
        with self._torch.no_grad():
            more = self._model.generate(
                given,
                attention_mask=self._torch.ones_like(given),
                do_sample=False,
                max_new_tokens=tokens,
            )
        return more[0, len(ids) :].tolist()


def compare(
    theirs: Theirs,
    model: ModelConfig,
    params: Params,
    prompts: Sequence[Prompt],
    tokens: int,
    ends: Sequence[int],
) -> list[Comparison]:
    """Ids, logits and greedy continuations of prompts, by transformers and by us.

    Args:
      theirs: the export.
      model: our network.
      params: float32, rounded as the export's are.
      prompts: to continue.
      tokens: most of a continuation.
      ends: ids at which our sampler stops.
    """
    exact = dataclasses.replace(model, compute_dtype="float32")
    return [_compare(theirs, exact, params, prompt, tokens, tuple(ends)) for prompt in prompts]


def _compare(
    theirs: Theirs,
    model: ModelConfig,
    params: Params,
    prompt: Prompt,
    tokens: int,
    ends: tuple[int, ...],
) -> Comparison:
    ids = list(prompt.ids)
    expected = theirs.logits(ids)
    place = jnp.arange(len(ids), dtype=jnp.int32)[None]
    trunk = Trunk(jnp.asarray([ids]), jnp.ones_like(place), place)
    found = np.asarray(jax.jit(_logits, static_argnums=0)(model, params, trunk))[0]
    spread = float(expected.max() - expected.min())
    followed = theirs.continuation(ids, tokens)
    ours = list(continuation(model, params, ids, tokens, ends=ends))
    same = [a == b for a, b in zip(followed, ours, strict=False)]
    agreed = next((i for i, equal in enumerate(same) if not equal), len(same))
    tied = False
    if agreed < len(same):
        second, first = np.sort(theirs.logits(ids + ours[:agreed])[-1])[-2:]
        tied = bool(first - second <= TOLERANCE * spread)
    return Comparison(
        their_ids=theirs.ids(prompt),
        our_ids=ids,
        error=float(np.abs(found - expected).max()) / spread,
        agreed=agreed,
        asked=max(len(followed), len(ours)),
        tied=tied,
        stops=(_stop(followed, theirs.ends), _stop(ours, ends)),
    )


def _stop(ids: Sequence[int], ends: Sequence[int]) -> int | None:
    """The id that ends a continuation, if one does."""
    return ids[-1] if ids and ids[-1] in ends else None


def _logits(model: ModelConfig, params: Params, trunk: Trunk) -> jax.Array:
    bound = bind(model, params)
    return bound.logits(forward(bound, trunk))
