"""Reinforcement learning with verifiable rewards (RLVR): the answer of a response is right or wrong.

    python -m launch.train --config=configs/rlvr.py --workdir=runs/rlvr --config.init_from=<run or folder> \
        --config.data.problems.train=<.jsonl or .parquet files> \
        --config.data.problems.prompt_column=question --config.data.problems.answer_column=answer

Prompts are formatted with the chat template of the tokenizer if it has one; `--config.data.chat_template` takes
a Jinja file, or `none`. A response begins with the opening thinking tag, or, with
`--config.data.problems.think=False`, with what the template puts before it. Its answer is read after the closing
tag: a response whose thought is never closed has no answer. Every 20th problem is held out unless
`--config.data.problems.evaluation` names files. The answers of GSM8K follow ####:

    … --config.data.problems.answer_marker="####"

Leave-one-out advantages (RLOO), other rewards, and a higher upper clip:

    … --config.rlp.advantages=leave_one_out
    … --config.objective=ttrl        (the majority answer counts as right), or rlcr, hicra
    … --config.rlp.minibatches=4 --config.rlp.clip_high=0.28
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Return the config; network and tokenizer come from `init_from`."""
    config = default.get_config()
    config.objective = "rlvr"
    config.data.sequence_length = 512  # T: longer than all prompts
    config.data.problems.instruction = (
        "{problem}\nPlease reason step by step, and put your final answer within \\boxed{}."
    )
    config.data.problems.response_length = 1024  # L

    config.steps = 200
    config.batch_size = 64  # B: problems per step
    config.optimizer.learning_rate = 1e-6
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 5

    config.rlp.group_size = 8  # G
    config.rlp.temperature = 1.0

    config.evaluation.every = 50
    config.checkpoint.every = 50
    return config
