"""Supervised fine-tuning on prompts with responses; only the tokens of the responses are trained on.

    python -m launch.train --config=configs/sft.py --workdir=runs/sft --config.init_from=<run or folder> \
        --config.data.sft.train=<.jsonl or .parquet files> \
        --config.data.sft.prompt_column=question --config.data.sft.response_column=answer

or `--config.data.sft.messages_column=messages` for conversations. They are formatted with the chat template of
the tokenizer if it has one; `--config.data.chat_template` takes a Jinja file, or `none` to append the response
to its prompt directly. Every 20th row is held out for `response_loss` unless `--config.data.sft.evaluation`
names files. To mix pairs with documents, here 30% pairs:

    … --config.data.train=<texts> --config.data.sft.share=0.3

Then the metrics of held-out documents, with and without thoughts, are measured too.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Return the config; network and tokenizer come from `init_from`."""
    config = default.get_config()
    config.objective = "next_token"
    config.data.sft.share = 1.0
    config.data.sequence_length = 1024  # T

    config.steps = 500
    config.batch_size = 16
    config.optimizer.learning_rate = 1e-5
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 20

    config.checkpoint.every = 100
    return config
