"""The full recipe of the paper for Qwen3-1.7B-Base (arXiv 2510.01265, section 4).

    python -m launch.train --config=configs/qwen3_1p7b_rlp.py --workdir=<folder> \
        --config.data.train=<documents> --config.init_from=Qwen/Qwen3-1.7B-Base

`init_from` can also be a folder with that model; network and tokenizer are taken from it.
This project has not run the recipe, for lack of such a machine; tests check its shapes (1,720,574,976
parameters), and docs/capacity.md has the memory and time of a step as `python -m launch.compile` predicts them.
The paper trained on 32 H100; 200 steps are the 170M input tokens of its ablations. It reports, for
the base and after RLP: MATH-500 48.45 and 58.48, GSM8K 54.16 and 74.48, MMLU-Pro 28.17 and 34.62.

Settings that the paper does not give are the defaults of this project: AdamW 0.9 / 0.95 without weight
decay, gradient norm 1.0, clip 0.2 / 0.2, thoughts that reach the limit are masked.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Return the recipe."""
    config = default.get_config()
    config.objective = "rlp"
    config.steps = 200
    config.batch_size = 512  # documents ("prompts") per step

    config.model.vocab_size = 151936
    config.model.hidden_size = 2048
    config.model.num_layers = 28
    config.model.num_heads = 16
    config.model.num_kv_heads = 8
    config.model.head_dim = 128
    config.model.ffn_size = 6144
    config.model.rope.theta = 1e6
    config.model.compute_dtype = "bfloat16"
    config.model.remat = "block"

    # The base model was pretrained with <|endoftext|> between documents; the chat tokenizer has
    # <|im_end|>, which ends a turn, as its eos_token.
    config.data.eos = "<|endoftext|>"
    config.data.sequence_length = 2048  # T: context

    config.optimizer.learning_rate = 1e-6

    config.rlp.group_size = 16  # G
    config.rlp.forks_per_document = 1  # K
    config.rlp.thought_length = 2048  # L
    config.rlp.horizon = 1  # H
    config.rlp.temperature = 0.7
    config.rlp.positions = "uniform"
    config.rlp.baseline = "ema"
    config.rlp.ema_decay = 0.999  # tau

    # Sizes that fit: docs/capacity.md has the memory of a step on several machines.
    config.rlp.max_branches_in_flight = 2048  # of the 8192 thoughts of a step
    config.rlp.update_micro_batch = 1024

    config.checkpoint.every = 20
    config.evaluation.every = 20
    config.evaluation.browse_documents = 1
    config.evaluation.browse_positions = 4  # each costs `thoughts` caches of L tokens

    config.mesh.data = 1
    config.mesh.fsdp = -1
    return config
