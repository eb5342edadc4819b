"""Names of the leaves of a tree."""

import jax

from models.paths import by_name, name_of


def test_a_name_is_the_path_from_the_root_and_is_unique():
    tree = {"blocks": {"q": {"kernel": 1, "scale": 2}, "k": {"kernel": 3}}, "embedding": 4}
    assert by_name(tree) == {
        "blocks/k/kernel": 3,
        "blocks/q/kernel": 1,
        "blocks/q/scale": 2,
        "embedding": 4,
    }
    named = jax.tree_util.tree_map_with_path(lambda path, leaf: name_of(path), tree)
    assert jax.tree.leaves(named) == [*by_name(tree)]
