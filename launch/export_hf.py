"""Exports a checkpoint: `python -m launch.export_hf --checkpoint=runs/rlp --out=exported --verify`.

The folder is what transformers' `from_pretrained` and vLLM load: weights, config, tokenizer, chat
template, generation config, and rlp.json, which says where it comes from. `--verify` has
transformers load it (this needs torch) and compares logits and a greedy continuation.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from launch import program

if TYPE_CHECKING:
    from rlp.exchange import Opened

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "<workdir>, <workdir>@<step> or <workdir>@best", required=True
)
_STEP = flags.DEFINE_integer(
    "step", None, "of the checkpoint, as in <workdir>@<step>", lower_bound=0
)
_OUT = program.define_output("out", "folder to make")
_DTYPE = flags.DEFINE_enum("dtype", "bfloat16", ["bfloat16", "float32"], "of the weights")
_SHARD = flags.DEFINE_float("shard_gb", 2.0, "most GB of weights in a file", lower_bound=0.001)
_VERIFY = flags.DEFINE_bool("verify", False, "compare the result, loaded by transformers")
_PROMPTS = flags.DEFINE_multi_string(
    "prompt", ["The quick brown fox", "1 + 2 ="], "what --verify compares on; may be repeated"
)
_TOKENS = flags.DEFINE_integer("tokens", 32, "of --verify's continuations", lower_bound=1)


def main(_: Sequence[str]) -> None:
    """Exports, and compares if asked to."""
    from configs import default
    from rlp import exchange
    from rlp.whole_folder import refuse_existing

    refuse_existing(Path(_OUT.value))
    name = _CHECKPOINT.value + (f"@{_STEP.value}" if _STEP.present else "")
    opened = exchange.open_model(name, default.get_config(), exchange.host())
    out = Path(_OUT.value)
    prompts = [exchange.prompt_of(opened, text) for text in _PROMPTS.value] if _VERIFY.value else []
    family = exchange.export_model(opened, out, _DTYPE.value, int(_SHARD.value * 1e9))
    print("\n".join(exchange.described(opened)))
    print(f"exported: {out} ({family.architecture}, {_DTYPE.value})")
    if _VERIFY.value and not _compared(opened, prompts, out):
        sys.exit(1)


def _compared(opened: "Opened", prompts: list[list[int]], out: Path) -> bool:
    """Prints a line for every prompt; whether all of them pass."""
    from rlp import exchange
    from rlp.huggingface import verify

    params = exchange.rounded(opened.params, _DTYPE.value)
    found = verify.compare(out, opened.method.model, params, prompts, _TOKENS.value)
    for text, result in zip(_PROMPTS.value, found, strict=True):
        tie = "" if result.asked == _TOKENS.value else ", then a tie"
        print(
            f"{'same' if result.passed else 'DIFFERENT'}: {text!r}: logits differ by "
            f"{result.error:.1e} of their range, {result.agreed} of {_TOKENS.value} greedy tokens "
            f"agree{tie}"
        )
    return all(result.passed for result in found)


if __name__ == "__main__":
    program.run(main)
