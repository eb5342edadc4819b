"""The map of parameters: paths in our tree, tensor names in a checkpoint, operations between them.

Importing applies the operations, exporting their inverses; a conversion does nothing else.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any, Protocol

from models.blocks import layer_numbers
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


def is_unused(name: str) -> bool:
    """Return whether a tensor of a checkpoint belongs to a part that the logits of a text do not
    need: a vision tower, or extra layers that predict further tokens."""
    return name.startswith(("model.visual.", "mtp."))


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


class Depthwise:
    """The taps of a convolution of each channel: [channels, 1, taps] in the checkpoint and [taps,
    channels] in our tree."""

    def forward(self, x: Any) -> Any:
        return x[:, 0].T

    def inverse(self, x: Any) -> Any:
        return x.T[:, None]

    def their_shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        return ours[1], 1, ours[0]


@dataclasses.dataclass(frozen=True)
class Weight:
    """A parameter and the tensor of a checkpoint, or one tensor per layer, that contains it.

    Weights that have the same name, next to each other, are parts of one tensor along its first
    axis.

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
    """One tensor of a checkpoint, or a part of it, and its path in our parameters.

    Attributes:
      name: name in the checkpoint.
      shape: shape in the checkpoint, of this part.
      path: path of the leaf in our parameters, such as "blocks/attention/q/kernel".
      layer: index on the leading axis of the leaf; None if the leaf has no axis of layers.
      operations: from the checkpoint's array to ours.
      copy_of: name of the tensor of which it is a copy (the output projection of a model with tied
        embeddings); it may be absent from a checkpoint and is never written.
      rows: the part of the tensor's first axis; None for all of it.
      alias: its name in some other checkpoints.
    """

    name: str
    shape: tuple[int, ...]
    path: str
    layer: int | None
    operations: tuple[Operation, ...] = ()
    copy_of: str = ""
    rows: slice | None = None
    alias: str = ""

    def part(self, x: Any) -> Any:
        """Return this part of the checkpoint's array."""
        return x if self.rows is None else x[self.rows]

    def ours(self, x: Any) -> Any:
        """Convert this part of the checkpoint's array to one layer of ours."""
        for operation in self.operations:
            x = operation.forward(x)
        return x

    def theirs(self, x: Any) -> Any:
        """Convert one layer of ours to this part of the checkpoint's array."""
        for operation in reversed(self.operations):
            x = operation.inverse(x)
        return x


def all_tensors(
    weights: Sequence[Weight], model: ModelConfig, alias: Callable[[str], str]
) -> list[Tensor]:
    """Return every tensor of a checkpoint of this network, in the order of the layers; `alias` maps
    their names to those in other checkpoints."""
    leaves = {name: leaf.shape for name, leaf in by_name(shapes(model)).items()}
    numbers = layer_numbers(model)
    once: list[Tensor] = []
    layered: list[list[Tensor]] = [[] for _ in range(model.num_layers)]
    for weight in weights:
        if weight.path not in leaves:
            continue
        shape = leaves[weight.path]
        if "*" not in weight.name:
            once.append(_tensor(weight, weight.name, shape, None))
            continue
        for index, layer in enumerate(numbers[weight.path.split("/")[1]]):
            name = weight.name.replace("*", str(layer))
            layered[layer].append(_tensor(weight, name, shape[1:], index))
    if model.tie_embeddings:
        source = next(tensor for tensor in once if tensor.path == "embedding")
        once.append(dataclasses.replace(source, name="lm_head.weight", copy_of=source.name))
    first, *last = once
    in_order = [first, *(tensor for layer in layered for tensor in _parts(layer)), *last]
    return [dataclasses.replace(tensor, alias=alias(tensor.name)) for tensor in in_order]


def _tensor(weight: Weight, name: str, shape: tuple[int, ...], layer: int | None) -> Tensor:
    for operation in reversed(weight.operations):
        shape = operation.their_shape(shape)
    return Tensor(name, shape, weight.path, layer, weight.operations)


def _parts(tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield the tensors of a layer; those with the same name as parts of one tensor."""
    for _, of_name in itertools.groupby(tensors, lambda tensor: tensor.name):
        parts = list(of_name)
        stops = list(itertools.accumulate(part.shape[0] for part in parts))
        for part, stop in zip(parts, stops, strict=True):
            rows = slice(stop - part.shape[0], stop) if len(parts) > 1 else None
            yield dataclasses.replace(part, rows=rows)


def whole_shapes(tensors: Iterable[Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of whole tensors in the checkpoint, by name."""
    whole: dict[str, tuple[int, ...]] = {}
    for tensor in tensors:
        length = tensor.shape[0] if tensor.rows is None else tensor.rows.stop
        whole[tensor.name] = (length, *tensor.shape[1:])
    return whole


def as_in(names: Container[str], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors under their aliases if a checkpoint with these names uses them."""
    if not any(tensor.alias != tensor.name and tensor.alias in names for tensor in tensors):
        return list(tensors)
    aliases = {tensor.name: tensor.alias for tensor in tensors} | {"": ""}
    return [
        dataclasses.replace(tensor, name=tensor.alias, copy_of=aliases[tensor.copy_of])
        for tensor in tensors
    ]
