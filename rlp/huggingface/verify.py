"""Does an exported folder compute what the checkpoint does? transformers is asked."""

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
from rlp.errors import UserError
from rlp.generate import continuation

TOLERANCE = 2e-4  # of the range of the logits, float32 on both sides


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One prompt, by transformers and by us.

    Attributes:
      error: largest difference of logits, as a share of their range.
      agreed: tokens of the greedy continuation that are the same.
      asked: tokens that were asked for. Where the two likeliest tokens are nearer than the
        tolerance, either may follow, and no more is asked.
    """

    error: float
    agreed: int
    asked: int

    @property
    def passed(self) -> bool:
        """Whether they compute the same."""
        return self.error <= TOLERANCE and self.agreed == self.asked


def compare(
    folder: Path, model: ModelConfig, params: Params, prompts: Sequence[Sequence[int]], tokens: int
) -> list[Comparison]:
    """Logits and greedy continuations of prompts, by transformers from `folder` and by us.

    Args:
      folder: of the export.
      model: our network.
      params: float32, rounded as the export's are.
      prompts: ids.
      tokens: of a continuation.

    Raises:
      UserError: transformers or torch are not there, or do not load the folder.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise UserError("--verify needs torch and transformers: pip install torch") from error
    try:
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
        ).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"transformers does not load {folder}: {error}") from error
    # Greedy means the likeliest token: no penalties, no ends of the model's own.
    theirs.generation_config = transformers.GenerationConfig()
    exact = dataclasses.replace(model, compute_dtype="float32")
    return [_compare(torch, theirs, exact, params, list(prompt), tokens) for prompt in prompts]


def _compare(
    torch: Any, theirs: Any, model: ModelConfig, params: Params, prompt: list[int], tokens: int
) -> Comparison:
    with torch.no_grad():
        expected = theirs(torch.tensor([prompt])).logits[0].numpy()
        more = theirs.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=tokens, eos_token_id=None
        )
    place = jnp.arange(len(prompt), dtype=jnp.int32)[None]
    trunk = Trunk(jnp.asarray([prompt]), jnp.ones_like(place), place)
    found = np.asarray(jax.jit(_logits, static_argnums=0)(model, params, trunk))[0]
    spread = float(expected.max() - expected.min())
    followed = more[0, len(prompt) :].tolist()
    ours = list(continuation(model, params, prompt, tokens))
    agreed = next(
        (i for i, (a, b) in enumerate(zip(followed, ours, strict=True)) if a != b), tokens
    )
    asked = tokens
    if agreed < tokens:
        with torch.no_grad():
            last = theirs(torch.tensor([prompt + ours[:agreed]])).logits[0, -1]
        first, second = last.topk(2).values.tolist()
        if first - second <= TOLERANCE * spread:
            asked = agreed
    return Comparison(float(np.abs(found - expected).max()) / spread, agreed, asked)


def _logits(model: ModelConfig, params: Params, trunk: Trunk) -> jax.Array:
    bound = bind(model, params)
    return bound.logits(forward(bound, trunk))
