"""Where a family keeps its parameters: a path here, a name there, and operations between them.

Importing runs the operations forwards, exporting backwards. There is nothing else to a conversion.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Protocol

from models.config import ModelConfig
from models.paths import by_name
from models.transformer import shapes

# Tensors that old checkpoints hold and every reader computes: rotary frequencies and angles, the
# positions, Gemma's scale of embeddings, and the causal mask, which is [1, 1, n, n].
_BUFFER = re.compile(
    r"(^|\.)(rotary_emb\w*\.\w*(inv_freq|cos_cached|sin_cached)|position_ids|embed_scale"
    r"|masked_bias)$"
)
_MASK = re.compile(r"(^|\.)(self_attn|attn|attention)\.bias$")


def is_buffer(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor of a checkpoint is not a weight, but what every reader computes."""
    mask = len(shape) == 4 and tuple(shape[:2]) == (1, 1) and _MASK.search(name)
    return bool(mask or _BUFFER.search(name))


class Operation(Protocol):
    """A step from their array to ours that can be undone. Works on numpy and jax arrays."""

    def forward(self, x: Any) -> Any:
        """Theirs to ours."""

    def inverse(self, x: Any) -> Any:
        """Ours to theirs."""

    def their_shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of `inverse` of an array of this shape."""


class Transposed:
    """Their kernels are [outputs, inputs], ours the reverse."""

    def forward(self, x: Any) -> Any:
        return x.T

    def inverse(self, x: Any) -> Any:
        return x.T

    def their_shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        return ours[::-1]


@dataclasses.dataclass(frozen=True)
class Weight:
    """A parameter of ours and the tensor, or one tensor per layer, that holds it there.

    Attributes:
      path: place in our parameters, as in `models.sharding.LOGICAL_AXES`.
      name: of the tensor; a `*` stands for the layer's number.
      operations: from their array to ours, of one layer.
    """

    path: str
    name: str
    operations: tuple[Operation, ...] = ()


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint and its place in our parameters.

    Attributes:
      name: there.
      shape: there.
      path: "blocks/attention/q/kernel", the leaf here.
      layer: its place on the leading axis of the leaf; None where there is no such axis.
      operations: from theirs to ours.
      copy_of: the tensor whose values it repeats (the logits' matrix of a model that reads logits
        with its embedding): it may be absent, and is never written.
    """

    name: str
    shape: tuple[int, ...]
    path: str
    layer: int | None
    operations: tuple[Operation, ...] = ()
    copy_of: str = ""

    def ours(self, x: Any) -> Any:
        """Their array as one layer of ours."""
        for operation in self.operations:
            x = operation.forward(x)
        return x

    def theirs(self, x: Any) -> Any:
        """One layer of ours as their array."""
        for operation in reversed(self.operations):
            x = operation.inverse(x)
        return x


def all_tensors(weights: Sequence[Weight], model: ModelConfig) -> list[Tensor]:
    """Every tensor of a checkpoint of this network, in the order of the layers."""
    leaves = {name: leaf.shape for name, leaf in by_name(shapes(model)).items()}
    once: list[Tensor] = []
    layered: list[list[Tensor]] = [[] for _ in range(model.num_layers)]
    for weight in weights:
        if weight.path not in leaves:
            continue
        shape = leaves[weight.path]
        if "*" not in weight.name:
            once.append(_tensor(weight, weight.name, shape, None))
            continue
        for layer, found in enumerate(layered):
            found.append(_tensor(weight, weight.name.replace("*", str(layer)), shape[1:], layer))
    if model.tie_embeddings:
        source = next(tensor for tensor in once if tensor.path == "embedding")
        once.append(dataclasses.replace(source, name="lm_head.weight", copy_of=source.name))
    first, *last = once
    return [first, *(tensor for layer in layered for tensor in layer), *last]


def _tensor(weight: Weight, name: str, shape: tuple[int, ...], layer: int | None) -> Tensor:
    for operation in reversed(weight.operations):
        shape = operation.their_shape(shape)
    return Tensor(name, shape, weight.path, layer, weight.operations)
