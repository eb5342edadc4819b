"""Export a checkpoint: `python -m launch.export_hf --checkpoint=runs/rlp --out=exported --verify`.

The program writes a folder for `from_pretrained` of transformers and for vLLM: weights, config,
tokenizer, chat template, generation config, and rlp.json with the source. `--verify` loads it with
transformers (this needs torch) and compares, for texts and for a chat: the ids of the prompt, the
logits, the greedy continuation and where it stops.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from launch import program

if TYPE_CHECKING:
    from rlp.interop.huggingface.verify import Prompt
    from rlp.run.opened_model import Opened

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "<workdir>, <workdir>@<step> or <workdir>@best", required=True
)
_STEP = flags.DEFINE_integer(
    "step", None, "step of the checkpoint, as in <workdir>@<step>", lower_bound=0
)
_OUT = program.define_output("out", "folder to create")
_DTYPE = flags.DEFINE_enum("dtype", "bfloat16", ["bfloat16", "float32"], "dtype of the weights")
_SHARD = flags.DEFINE_float("shard_gb", 2.0, "maximum GB of weights per file", lower_bound=0.001)
_VERIFY = flags.DEFINE_bool("verify", False, "load the result with transformers, and compare")
_PROMPTS = flags.DEFINE_multi_string(
    "prompt", ["The quick brown fox", "1 + 2 ="], "prompt for --verify; can be repeated"
)
_TOKENS = flags.DEFINE_integer(
    "tokens", 32, "length of the continuations of --verify", lower_bound=1
)


def main(_: Sequence[str]) -> None:
    """Export the checkpoint, and compare with --verify."""
    from configs import default
    from rlp.run import export_model, opened_model
    from rlp.runtime.atomic_files import refuse_existing

    refuse_existing(Path(_OUT.value))
    name = _CHECKPOINT.value + (f"@{_STEP.value}" if _STEP.present else "")
    opened = opened_model.open_model(name, default.get_config(), opened_model.conversion_mesh())
    out = Path(_OUT.value)
    prompts_to_verify = _prompts(opened) if _VERIFY.value else []
    family = export_model.export_model(opened, out, _DTYPE.value, int(_SHARD.value * 1e9))
    print("\n".join(opened_model.describe(opened)))
    print(f"exported: {out} ({family.architecture}, {_DTYPE.value})")
    if _VERIFY.value and not _compared(opened, prompts_to_verify, out):
        sys.exit(1)


def _prompts(opened: "Opened") -> "list[Prompt]":
    """Return every prompt as a text, and the first one in a chat if there is a chat template."""
    from rlp.interop.huggingface.verify import Prompt
    from rlp.run import prompts

    texts = [Prompt(text, prompts.prompt_ids(opened, text)) for text in _PROMPTS.value]
    if opened.method.template is None:
        return texts
    first = _PROMPTS.value[0]
    ids = opened.method.tokenizer.encode(prompts.chat_prompt(opened, first))
    return [*texts, Prompt(first, ids, prompts.messages(first))]


def _compared(opened: "Opened", compared: "list[Prompt]", out: Path) -> bool:
    """Print a line for every comparison; return whether all results are the same."""
    from rlp.interop.huggingface import verify
    from rlp.run import export_model, prompts

    theirs, ends = verify.TransformersModel(out), prompts.exported_stop_ids(opened)
    if theirs.corrected:
        print(f"corrected: {theirs.corrected}")
    params = export_model.round_trip(opened.params, _DTYPE.value)
    shown = lambda ids: ", ".join(f"{opened.method.tokenizer.decode([i])!r} {i}" for i in ids)
    lines = [
        (set(theirs.ends) == set(ends), f"generate stops at {shown(theirs.ends) or 'no token'}"),
        (theirs.template == (opened.method.template is not None), _templates(theirs.template)),
    ]
    results = verify.compare(theirs, opened.method.model, params, compared, _TOKENS.value, ends)
    for prompt, result in zip(compared, results, strict=True):
        name = f"{'chat ' if prompt.messages else ''}{prompt.text!r}"
        lines.append((result.same_ids, f"{name}: {len(result.their_ids)} ids"))
        stop = "" if result.stops[0] is None else f", the last is {shown([result.stops[0]])}"
        tie = ", then a tie" if result.tied else ""
        lines.append(
            (
                result.same_text,
                f"{name}: logits differ by {result.error:.1e} of their range, {result.agreed} of "
                f"{result.asked} greedy tokens agree{stop}{tie}",
            )
        )
    for same, text in lines:
        print(f"{'same' if same else 'DIFFERENT'}: {text}")
    return all(same for same, _ in lines)


def _templates(there: bool) -> str:
    """Return the text about the chat template of the export."""
    return "a chat template" if there else "no chat template, so no chat is compared"


if __name__ == "__main__":
    program.run(main)
