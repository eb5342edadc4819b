"""Names of the leaves of a parameter tree: their paths, as in "blocks/attention/q/kernel".

The same names are in checkpoints, in the maps to Hugging Face tensors, in `models.sharding` and in
messages.
"""

from typing import Any

import jax


def name_of(path: Any) -> str:
    """The name of a leaf from its key path, as `jax.tree_util` gives it."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def by_name(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their names, in the order of the tree."""
    return {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
