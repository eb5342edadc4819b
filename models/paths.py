"""Names of the leaves of a parameter tree: their paths, such as "blocks/attention/q/kernel".

Checkpoints, the maps to Hugging Face tensors, `models.sharding` and messages use the same names.
"""

from typing import Any

import jax


def name_of(path: Any) -> str:
    """Return the name of a leaf from its `jax.tree_util` key path."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def by_name(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by name, in the order of the tree."""
    return {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
