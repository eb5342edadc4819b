"""What one backend wants and another does not, in one place.

Everything else in the project is the same for all. The choices are made while tracing, for the
backend that JAX computes on; none of them changes a result by more than rounding.
"""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Choices:
    """Sizes and forms that suit a backend.

    Attributes:
      unrolled_layers: networks of up to so many layers run as straight code. XLA's CPU backend
        copies a layer's weights and caches out of their stack each time a scan visits it; the
        others read them in place, and compile one layer faster than many.
      row_scores: attention scores per row of documents that are alive at once, at most.
      logits: logits that are alive at once, at most.
      small_rows: up to so many query rows per key head, own-branch attention is multiply-and-add
        rather than a matmul, whose set-up costs a CPU more than the arithmetic.
    """

    unrolled_layers: int
    row_scores: int
    logits: int
    small_rows: int


CPU = Choices(unrolled_layers=8, row_scores=2**22, logits=2**22, small_rows=8)
ACCELERATOR = Choices(unrolled_layers=0, row_scores=2**25, logits=2**25, small_rows=0)


def choices() -> Choices:
    """The choices for the backend in use."""
    return CPU if jax.default_backend() == "cpu" else ACCELERATOR
