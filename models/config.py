"""The shape of a network. Families are values of these fields, not copies of the code."""

import dataclasses

import jax.numpy as jnp

COMPUTE_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
REMAT_POLICIES = ("none", "block", "dots")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder with grouped-query attention, RMSNorm, RoPE and SwiGLU, shaped like Qwen3.

    Attributes:
      vocab_size: rows of the embedding (V).
      hidden_size: width of the residual stream (D).
      num_layers: transformer blocks.
      num_heads: query heads.
      num_kv_heads: key and value heads; divides `num_heads`.
      head_dim: width of one head; even, because RoPE turns pairs.
      ffn_size: inner width of the feed-forward.
      qk_norm: RMSNorm over every query and key head before RoPE.
      tie_embeddings: logits are read with the embedding; else with a matrix of their own.
      rope_theta: base of the rotary frequencies.
      norm_epsilon: added to the mean square in RMSNorm.
      compute_dtype: "float32" or "bfloat16", for activations and matmuls. Parameters, norms,
        softmax and logits are float32.
      remat: what the backward pass computes again: "none", "block" (all but the residual
        stream) or "dots" (all but the outputs of weight matmuls).
      attention: attention implementation by name; None picks the best for the backend.

    Raises:
      ValueError: if a field has no meaning, naming it.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_size: int
    qk_norm: bool = True
    tie_embeddings: bool = True
    rope_theta: float = 1e4
    norm_epsilon: float = 1e-6
    compute_dtype: str = "float32"
    remat: str = "none"
    attention: str | None = None

    def __post_init__(self):
        for field in ("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads",
                      "head_dim", "ffn_size"):  # fmt: skip
            if getattr(self, field) < 1:
                raise ValueError(f"model.{field} is {getattr(self, field)}; it must be at least 1")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"model.num_heads={self.num_heads} is no multiple of "
                f"model.num_kv_heads={self.num_kv_heads}; set num_kv_heads to a divisor"
            )
        if self.head_dim % 2:
            raise ValueError(f"model.head_dim={self.head_dim} is odd; RoPE needs an even width")
        if self.compute_dtype not in COMPUTE_DTYPES:
            raise ValueError(
                f"model.compute_dtype={self.compute_dtype!r}; use one of {sorted(COMPUTE_DTYPES)}"
            )
        if self.remat not in REMAT_POLICIES:
            raise ValueError(f"model.remat={self.remat!r}; use one of {list(REMAT_POLICIES)}")

    @property
    def dtype(self) -> type:
        """The jax dtype of activations and matmuls."""
        return COMPUTE_DTYPES[self.compute_dtype]
