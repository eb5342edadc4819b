"""Writes the stand-in of a model as a Hugging Face folder."""

from rlp.interop.huggingface import write_folder
from tests.support import standin

MADE = standin.tensors()
VALUES = standin.arrays(MADE)
TREE = standin.params(MADE, VALUES)


def write(out, tree=TREE, made=MADE, config=None, **options):
    """`write_folder` with the usual arguments."""
    options = {"dtype": "float32", "files": {}, "record": {"step": 7}} | options
    write_folder(out, tree, made, config or {}, **options)
