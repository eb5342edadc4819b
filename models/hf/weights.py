"""The map of parameters: paths in our tree, tensor names in a checkpoint, operations between them.

Importing applies the operations, exporting their inverses; a conversion does nothing else.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Protocol

from models.config import ModelConfig
from models.paths import by_name
from models.transformer import shapes

# Tensors in old checkpoints that every reader computes: rotary frequencies and angles, positions,
# Gemma's scale of embeddings, and the causal mask [1, 1, n, n].
_BUFFER = re.compile(
    r"(^|\.)(rotary_emb\w*\.\w*(inv_freq|cos_cached|sin_cached)|position_ids|embed_scale"
    r"|masked_bias)$"
)
_MASK = re.compile(r"(^|\.)(self_attn|attn|attention)\.bias$")


def is_buffer(name: str, shape: Sequence[int]) -> bool:
    """Return whether a tensor of a checkpoint is not a weight but a buffer that readers compute."""
    mask = len(shape) == 4 and tuple(shape[:2]) == (1, 1) and _MASK.search(name)
    return bool(mask or _BUFFER.search(name))


class Operation(Protocol):
    """An invertible step from the checkpoint's array to ours, for numpy and jax arrays."""

    def forward(self, x: Any) -> Any:
        """Convert the checkpoint's array to ours."""

    def inverse(self, x: Any) -> Any:
        """Convert our array to the checkpoint's."""

    def their_shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """Return the checkpoint's shape for an array of ours with this shape."""


class Transposed:
    """A kernel that is [outputs, inputs] in the checkpoint and [inputs, outputs] in our tree."""

    def forward(self, x: Any) -> Any:
        return x.T

    def inverse(self, x: Any) -> Any:
        return x.T

    def their_shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        return ours[::-1]


@dataclasses.dataclass(frozen=True)
class Weight:
    """A parameter and the tensor of a checkpoint, or one tensor per layer, that contains it.

    Attributes:
      path: path in our parameters, as in `models.sharding.LOGICAL_AXES`.
      name: name of the tensor; `*` stands for the index of the layer.
      operations: from the checkpoint's array to ours, for one layer.
    """

    path: str
    name: str
    operations: tuple[Operation, ...] = ()


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint and its path in our parameters.

    Attributes:
      name: name in the checkpoint.
      shape: shape in the checkpoint.
      path: path of the leaf in our parameters, such as "blocks/attention/q/kernel".
      layer: index on the leading axis of the leaf; None if the leaf has no axis of layers.
      operations: from the checkpoint's array to ours.
      copy_of: name of the tensor of which it is a copy (the output projection of a model with tied
        embeddings); it may be absent from a checkpoint and is never written.
    """

    name: str
    shape: tuple[int, ...]
    path: str
    layer: int | None
    operations: tuple[Operation, ...] = ()
    copy_of: str = ""

    def ours(self, x: Any) -> Any:
        """Convert the checkpoint's array to one layer of ours."""
        for operation in self.operations:
            x = operation.forward(x)
        return x

    def theirs(self, x: Any) -> Any:
        """Convert one layer of ours to the checkpoint's array."""
        for operation in reversed(self.operations):
            x = operation.inverse(x)
        return x


def all_tensors(weights: Sequence[Weight], model: ModelConfig) -> list[Tensor]:
    """Return every tensor of a checkpoint of this network, in the order of the layers."""
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
        for layer, of_layer in enumerate(layered):
            of_layer.append(_tensor(weight, weight.name.replace("*", str(layer)), shape[1:], layer))
    if model.tie_embeddings:
        source = next(tensor for tensor in once if tensor.path == "embedding")
        once.append(dataclasses.replace(source, name="lm_head.weight", copy_of=source.name))
    first, *last = once
    return [first, *(tensor for layer in layered for tensor in layer), *last]


def _tensor(weight: Weight, name: str, shape: tuple[int, ...], layer: int | None) -> Tensor:
    for operation in reversed(weight.operations):
        shape = operation.their_shape(shape)
    return Tensor(name, shape, weight.path, layer, weight.operations)
