"""Import a model in the Hugging Face format, as a run folder without training steps.

    python -m launch.import_hf --hf=<folder> --out=runs/base
    --hf=Qwen/Qwen3-1.7B-Base             a name on the hub, with network access
    --hf=model.Q4_K_M.gguf                a GGUF file of llama, mistral, qwen2, qwen3 or gemma3
    --add_tokens='<think>,</think>'       special tokens to add to its tokenizer …
    --like='<|im_start|>'                 … with the initial embedding of this token (default: mean)

The parameters are float32, dequantized if the file is quantized. Other runs can start from it:
`python -m launch.train --config.init_from=runs/base …` uses its network, parameters and tokenizer.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from launch import program

_HF = flags.DEFINE_string(
    "hf", None, "folder or GGUF file of the model, or its name on the hub", required=True
)
_OUT = program.define_output("out", "run folder to create")
_ADD_TOKENS = flags.DEFINE_list("add_tokens", [], "special tokens to add, comma-separated")
_BOS = flags.DEFINE_string(
    "bos", "", "token before every text; 'none' = no token, '' = that of the tokenizer"
)
_LIKE = flags.DEFINE_string(
    "like", "mean", "initial embedding of added tokens: that of a token, or 'mean'"
)


def main(_: Sequence[str]) -> None:
    """Import the model, and print a description of it."""
    from configs import default  # imports jax
    from rlp.interop import huggingface
    from rlp.run import import_model, opened_model

    config = default.get_config()
    config.data.bos = _BOS.value
    opened = import_model.import_model(
        _HF.value,
        Path(_OUT.value),
        config,
        new_tokens=_ADD_TOKENS.value,
        like=_LIKE.value,
    )
    print("\n".join(opened_model.describe(opened)))
    kinds = huggingface.quantization(_HF.value)
    print(f"imported: {_OUT.value}" + (f" (float32, dequantized from {kinds})" if kinds else ""))


if __name__ == "__main__":
    program.run(main)
