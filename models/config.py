"""The config of a network. Model families are values of its fields, not copies of the code."""

import dataclasses
import math
from collections.abc import Sequence

import jax.numpy as jnp

from models.layers.registry import LAYERS
from models.rope import Rope

COMPUTE_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
REMAT_POLICIES = ("none", "block", "dots")
QK_NORMS = ("none", "head", "all_heads")
NORMS = ("before", "after", "around")
ACTIVATIONS = ("silu", "gelu_tanh", "relu2")
# How the network is computed: not its architecture.
HOW = ("compute_dtype", "remat", "attention", "state_dtype")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Config of a decoder with grouped-query attention, RMSNorm, RoPE and a gated feed-forward, or
    of a hybrid with Mamba-2 (Nemotron-H) or gated DeltaNet (Qwen3.5).

    Defaults are those of Qwen3, for Mamba-2 those of Nemotron-H, for DeltaNet those of Qwen3.5.

    Attributes:
      vocab_size: rows of the embedding (V).
      hidden_size: width of the residual stream (D).
      num_layers: number of transformer blocks.
      num_heads: number of query heads.
      num_kv_heads: number of key and value heads; divides `num_heads`.
      head_dim: width of one head; even, because RoPE rotates pairs.
      ffn_size: inner width of the feed-forward.
      activation: activation of the feed-forward, of its gate if it has one: "silu", "gelu_tanh" or
        "relu2", the square of relu.
      norm: position of the RMSNorm of a sublayer: "before" it, "after" it (on its output, before
        the residual addition; OLMo 2), or "around" (both; Gemma 3).
      zero_centered_norm: norms multiply by 1 + their parameter (Gemma).
      norm_epsilon: added to the mean square in RMSNorm.
      qk_norm: RMSNorm of queries and keys before RoPE: "none", over every "head" (Qwen3), or over
        "all_heads" as one vector (OLMo 2).
      qkv_bias: the projections of queries, keys and values have a bias (Qwen 2).
      attention_gate: the output of attention is multiplied by the sigmoid of a projection of its
        own, with which a head's queries share a matrix: [query, gate] of each head (Qwen3.5).
      query_pre_attn_scalar: attention scores are divided by its square root; 0 means `head_dim`.
      sliding_window: tokens that a query of a local layer sees, itself included; 0 if no layer is
        local.
      layer_pattern: a letter of `models.layers.registry` for every layer: "G" for global attention,
        "L" for local attention, "D" for gated DeltaNet, each with a feed-forward; or, as layers
        of their own, "M" for Mamba-2, "*" for global attention without positions and "-" for a
        feed-forward without a gate. The pattern is repeated over the layers: "LLLLLG" is five local
        layers and a global one, and so on.
      mamba_heads: heads of a Mamba-2 layer.
      mamba_head_dim: width of such a head.
      mamba_groups: groups of these heads that share their b and c; divides `mamba_heads`.
      mamba_state: size of a state, for each dimension of a head.
      mamba_taps: tokens that the convolution of a Mamba-2 layer sees, the last one included.
      mamba_step_min: least step of the recurrence.
      mamba_step_max: largest step of the recurrence; 0 for no limit.
      delta_heads: heads of the values of a DeltaNet layer.
      delta_head_dim: width of such a head.
      delta_key_heads: heads of its keys and queries; divides `delta_heads`.
      delta_key_dim: width of such a head.
      delta_taps: tokens that the convolution of a DeltaNet layer sees, the last one included.
      rope: rotary position embedding.
      scale_embedding: embeddings are multiplied by the square root of `hidden_size` (Gemma).
      tie_embeddings: the output projection is the transposed embedding, not a separate matrix.
      logit_softcap: logits are cap · tanh(logits / cap); 0 disables the cap.
      compute_dtype: "float32" or "bfloat16", for activations and matmuls. Parameters, norms,
        softmax and logits are float32.
      remat: what the backward pass recomputes: "none", "block" (all but the residual stream) or
        "dots" (all but the outputs of weight matmuls).
      attention: name of the attention implementation; None selects the best for the backend.
      state_dtype: "float32" or "bfloat16", for the states of Mamba-2 and DeltaNet in
        caches.

    Raises:
      ValueError: If a field has an invalid value; the message names the field.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_size: int
    activation: str = "silu"
    norm: str = "before"
    zero_centered_norm: bool = False
    norm_epsilon: float = 1e-6
    qk_norm: str = "head"
    qkv_bias: bool = False
    attention_gate: bool = False
    query_pre_attn_scalar: float = 0.0
    sliding_window: int = 0
    layer_pattern: str = "G"
    mamba_heads: int = 0
    mamba_head_dim: int = 64
    mamba_groups: int = 8
    mamba_state: int = 128
    mamba_taps: int = 4
    mamba_step_min: float = 0.0
    mamba_step_max: float = 0.0
    delta_heads: int = 0
    delta_head_dim: int = 128
    delta_key_heads: int = 16
    delta_key_dim: int = 128
    delta_taps: int = 4
    rope: Rope = Rope()
    scale_embedding: bool = False
    tie_embeddings: bool = True
    logit_softcap: float = 0.0
    compute_dtype: str = "float32"
    remat: str = "none"
    attention: str | None = None
    state_dtype: str = "float32"

    def __post_init__(self):
        for field in ("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads",
                      "head_dim", "ffn_size"):  # fmt: skip
            if getattr(self, field) < 1:
                raise ValueError(f"model.{field} is {getattr(self, field)}; it must be at least 1")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"model.num_heads={self.num_heads} is not a multiple of "
                f"model.num_kv_heads={self.num_kv_heads}; set num_kv_heads to a divisor"
            )
        if self.head_dim % 2:
            raise ValueError(f"model.head_dim={self.head_dim} is odd; RoPE needs an even width")
        if (size := self.rope.rotary_dim(self.head_dim)) % 2 or not size:
            raise ValueError(
                f"model.rope.partial_rotary_factor={self.rope.partial_rotary_factor} rotates "
                f"{size} of model.head_dim={self.head_dim} dimensions; RoPE needs an even number "
                "above 0"
            )
        for field, allowed in (
            ("activation", ACTIVATIONS),
            ("norm", NORMS),
            ("qk_norm", QK_NORMS),
            ("compute_dtype", sorted(COMPUTE_DTYPES)),
            ("remat", REMAT_POLICIES),
            ("state_dtype", sorted(COMPUTE_DTYPES)),
        ):
            if (value := getattr(self, field)) not in allowed:
                raise ValueError(f"model.{field}={value!r}; use one of {list(allowed)}")
        if not self.layer_pattern or set(self.layer_pattern) - set(LAYERS):
            raise ValueError(
                f"model.layer_pattern={self.layer_pattern!r}; use G for every global layer, L for "
                "every local one and D for every one with DeltaNet, or M, * and - for Mamba-2, "
                f"attention and feed-forward (letters: {', '.join(sorted(LAYERS))}; a letter of "
                "your own exists once its module has been imported)"
            )
        # This reads the pattern, not `letters`: if num_layers is too large for any memory, the run
        # is refused later, and a loop over all layers would not end.
        if ("L" in self.layer_pattern[: self.num_layers]) != (self.sliding_window > 0):
            raise ValueError(
                f"model.sliding_window={self.sliding_window} does not match model.layer_pattern="
                f"{self.layer_pattern!r}; it must be above 0 if there are local layers, else 0"
            )
        if "D" in self.layer_pattern[: self.num_layers]:
            sizes = ("delta_heads", "delta_head_dim", "delta_key_heads", "delta_key_dim")
            self._check_recurrence("D", "DeltaNet", sizes, "delta_taps")
        if "M" in self.layer_pattern[: self.num_layers]:
            sizes = ("mamba_heads", "mamba_head_dim", "mamba_groups", "mamba_state")
            self._check_recurrence("M", "Mamba-2", sizes, "mamba_taps")
            self._check_steps()

    def _check_recurrence(self, letter: str, kind: str, sizes: Sequence[str], taps: str) -> None:
        """Check the sizes of a kind of layer; the first must be a multiple of the third."""
        for field in sizes:
            if getattr(self, field) < 1:
                raise ValueError(
                    f"model.{field} is {getattr(self, field)}; it must be at least 1 with {kind} "
                    f"layers ({letter} in model.layer_pattern={self.layer_pattern!r})"
                )
        heads, _, groups, _ = sizes
        if getattr(self, heads) % getattr(self, groups):
            raise ValueError(
                f"model.{heads}={getattr(self, heads)} is not a multiple of model.{groups}="
                f"{getattr(self, groups)}; set {groups} to a divisor"
            )
        if getattr(self, taps) < 2:
            raise ValueError(f"model.{taps} is {getattr(self, taps)}; it must be at least 2")

    def _check_steps(self) -> None:
        if not 0 <= self.mamba_step_min < (self.mamba_step_max or math.inf):
            raise ValueError(
                f"model.mamba_step_min={self.mamba_step_min} must be at least 0, and below "
                f"model.mamba_step_max={self.mamba_step_max} unless that is 0, for no limit"
            )

    @property
    def dtype(self) -> type:
        """JAX dtype of activations and matmuls."""
        return COMPUTE_DTYPES[self.compute_dtype]

    @property
    def dtype_of_states(self) -> type:
        """JAX dtype of the states of Mamba-2 and DeltaNet in caches."""
        return COMPUTE_DTYPES[self.state_dtype]

    @property
    def letters(self) -> tuple[str, ...]:
        """Letter of every layer."""
        pattern = self.layer_pattern
        return tuple(pattern[i % len(pattern)] for i in range(self.num_layers))

    @property
    def attention_scale(self) -> float:
        """Factor of attention scores."""
        return (self.query_pre_attn_scalar or self.head_dim) ** -0.5
