"""Find the first layer whose output is not finite, in the forward pass on a training document.

    python -m launch.bisect --checkpoint=runs/demo/rlp@40 --document=9

The warning of a step with values that are not finite names the document. `--checkpoint` takes the
run, or one of its steps with @, before that step; the data must be at the paths of its config. The
program exits with 1 if an output is not finite.
"""

import sys
from collections.abc import Sequence

from absl import flags

from launch import program
from rlp.runtime.display import printable

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "<workdir> or <workdir>@<step>", required=True
)
_DOCUMENT = flags.DEFINE_integer(
    "document",
    None,
    "number of the document, as the warning gives it",
    required=True,
    lower_bound=0,
)


def main(_: Sequence[str]) -> None:
    """Search the layers, and print the result."""
    from configs import default
    from rlp.run import layer_search, opened_model

    mesh = opened_model.one_device()
    opened = opened_model.open_model(_CHECKPOINT.value, default.get_config(), mesh)
    text, finite, result = layer_search.of_record(opened, _DOCUMENT.value)
    print(f"document {_DOCUMENT.value}: {printable(text[:200])}")
    print(result)
    if not finite:
        sys.exit(1)


if __name__ == "__main__":
    program.run(main)
