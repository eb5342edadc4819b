"""Reinforcement learning from verified answers (RLVR): a response to each problem's prompt is right or wrong.

    python -m launch.train --config=configs/rlvr.py --workdir=runs/rlvr --config.init_from=<run or folder> \
        --config.data.problems.train=<.jsonl or .parquet files> \
        --config.data.problems.prompt_column=question --config.data.problems.answer_column=answer

Prompts go through the tokenizer's own chat template if it has one; `--config.data.chat_template` takes a Jinja
file, or `none`. A response begins with the opening thinking tag (`--config.data.problems.think=False` lets it
begin with what the template puts before it), and its answer is looked for after the closing one: a response
whose thought is never closed has none. Every 20th
problem is held out unless `--config.data.problems.evaluation` names files. GSM8K's answers stand after ####:

    … --config.data.problems.answer_marker="####"

The same objective with leave-one-out advantages (RLOO), other rewards, and a clip that reaches further up:

    … --config.rlp.advantages=leave_one_out
    … --config.objective=ttrl        (the majority's answer is right), rlcr, hicra
    … --config.rlp.minibatches=4 --config.rlp.clip_high=0.28
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The run; the network and the tokenizer are those of `init_from`."""
    config = default.get_config()
    config.objective = "rlvr"
    config.data.sequence_length = 512  # T: prompts are shorter
    config.data.problems.instruction = (
        "{problem}\nPlease reason step by step, and put your final answer within \\boxed{}."
    )
    config.data.problems.response_length = 1024  # L

    config.steps = 200
    config.batch_size = 64  # B: problems a step
    config.optimizer.learning_rate = 1e-6
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 5

    config.rlp.group_size = 8  # G
    config.rlp.temperature = 1.0

    config.evaluation.every = 50
    config.checkpoint.every = 50
    return config
