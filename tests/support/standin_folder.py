"""Write the stand-in model of `tests.support.standin` as a Hugging Face folder."""

from rlp.interop.huggingface import write_folder
from tests.support import standin

MADE = standin.tensors()
VALUES = standin.arrays(MADE)
TREE = standin.params(MADE, VALUES)


def write(out, tree=TREE, made=MADE, config=None, **options):
    """Call `write_folder` with default arguments."""
    options = {"dtype": "float32", "files": {}, "record": {"step": 7}} | options
    write_folder(out, tree, made, config or {}, **options)
