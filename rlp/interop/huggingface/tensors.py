"""Check the map between Hugging Face tensors and our parameters, which `models.hf` creates."""

from collections.abc import Mapping, Sequence
from typing import Any

from models.hf import Tensor


def stacked_layers(tensors: Sequence[Tensor], leaves: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of layers of each stacked parameter, by path; copies are ignored.

    Raises:
      ValueError: If the tensors do not cover every layer of each of the `leaves` exactly once.
    """
    layers: dict[str, list[int | None]] = {}
    for tensor in tensors:
        if not tensor.copy_of:
            layers.setdefault(tensor.path, []).append(tensor.layer)
    if unmatched := layers.keys() ^ leaves.keys():
        raise ValueError(f"only in the tensors, or only in the parameters: {sorted(unmatched)}")
    for path, present in layers.items():
        if present != [None] and set(present) != set(range(len(present))):
            raise ValueError(f"the tensors of {path} belong to layers {present}")
    return {path: len(present) for path, present in layers.items() if present != [None]}
