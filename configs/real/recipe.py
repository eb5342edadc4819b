"""What all settings of the experiment on a real pretrained model share (docs/real_model.md).

The model learns to think from documents with thoughts (`warm`). From there, on new problems without thoughts:

    none         nothing more
    rlp          RLP
    random       the same with a reward at random
    cpt          continued pretraining (CPT) on these problems, with the FLOPs of `rlp`
    cpt_replay   the same on a mixture with documents of the warm start

and RLVR after each of them (`…_rlvr`). `launch.real` writes the texts and the model that the config expects.
"""

from dataclasses import dataclass

from ml_collections import ConfigDict

from configs import chains, default
from configs.real.problems import MARKER
from configs.real.texts import Sizes

SCALES = {"full": 1.0, "small": 1 / 16}


@dataclass(frozen=True)
class Setting:
    """The sizes of a setting.

    Attributes:
      sizes: number of problems of each part of the texts.
      document: most tokens of a document without a thought.
      thought: most tokens of a thought, with its closing tag.
      answer: most tokens of an answer with its full stop and the token that ends the document.
      warm_row: most tokens of a row of the warm start, which has several documents.
      warm_steps, rlp_steps, rlvr_steps: at full scale.
    """

    sizes: Sizes
    document: int
    thought: int
    answer: int
    warm_row: int
    warm_steps: int
    rlp_steps: int
    rlvr_steps: int


def chain(setting: Setting, arguments: str) -> ConfigDict:
    """Return the experiment of a setting.

    Args:
      setting: its sizes.
      arguments: "<folder>" or "<folder>,<scale>": the folder with `texts/` and `start/`, and "full" or "small".
    """
    folder, _, scale = arguments.partition(",")
    share = SCALES[scale or "full"]
    part = lambda count: max(2, round(count * share))
    texts = f"{folder}/texts"

    config = default.get_config()
    config.init_from = f"{folder}/start"
    config.model.compute_dtype = "bfloat16"
    config.batch_size = 16
    config.data.train = f"{texts}/rl.jsonl"
    config.data.evaluation = f"{texts}/development.jsonl"
    config.data.fork_marker = MARKER
    config.data.sequence_length = setting.document  # T
    config.data.chat_template = "none"
    config.data.problems.evaluation = f"{texts}/problems/test.jsonl"
    config.data.problems.response_length = setting.thought + setting.answer

    config.optimizer.learning_rate = 1e-5
    config.optimizer.warmup_steps = 4

    config.rlp.prompt = "none"
    config.rlp.positions = "given"  # at the answer
    config.rlp.group_size = 8  # G
    config.rlp.thought_length = setting.thought  # L
    config.rlp.horizon = setting.answer  # H: the whole answer
    config.rlp.temperature = 1.0
    config.rlp.unclosed = "append"
    config.rlp.update_micro_batch = 64

    config.checkpoint.every = 10  # one takes 1.5 GiB
    config.checkpoint.keep = 1

    config.evaluation.documents = part(setting.sizes.development)
    config.evaluation.thoughts = 4
    config.evaluation.problems = part(256)
    config.evaluation.responses = 1
    config.evaluation.browse_documents = 4

    rlp = {"objective": "rlp", "init_from": "warm", "steps": part(setting.rlp_steps)}
    cpt = {
        "objective": "next_token",
        "init_from": "warm",
        "match": "rlp:flops",
        "batch_size": 8,
        "data.sequence_length": setting.warm_row,
        "optimizer.schedule": "cosine",
        "optimizer.final_share": 0.1,
        "optimizer.weight_decay": 0.1,
    }
    starts = {
        "none": {"init_from": "warm", "steps": 0},
        "rlp": rlp,
        "random": rlp | {"objective": "random_reward"},
        "cpt": cpt,
        "cpt_replay": cpt | {"data.train": f"{texts}/replay.jsonl"},
    }
    rlvr = {
        "objective": "rlvr",
        "steps": part(setting.rlvr_steps),
        "data.train": "",
        "data.evaluation": "",
        "data.problems.train": f"{texts}/problems/rl.jsonl",
    }
    config.arms = chains.arms(starts, {"rlvr": rlvr})
    warm = {
        "steps": part(setting.warm_steps),
        "batch_size": 8,
        "data.train": f"{texts}/warm.jsonl",
        "data.sequence_length": setting.warm_row,
        "optimizer.learning_rate": 3e-4,
        "optimizer.schedule": "cosine",
        "optimizer.warmup_steps": part(setting.warm_steps / 10),
        "checkpoint.every": 50,
    }
    config.arms.warm = chains.changed(ConfigDict(), warm)
    return config
