"""Recipe, data and later stages that the chains of the paper's tables share (arXiv 2510.01265).

The user provides the files in one folder, the argument of every config here (`table1.py:<folder>`; the default is
`data`); each field can also be set by a flag:

    <folder>/documents/     texts for CPT and RLP: .jsonl .jsonl.zst .parquet with a column `text`
    <folder>/sft/           OpenThoughts3, of which the paper took 456,024 samples: a column `conversations`
    <folder>/math/          the 7,500 training problems of MATH: columns `problem` and `answer`
    <folder>/benchmarks/    the same columns: aime25, math_500, gsm8k, amc23, minerva, mmlu, mmlu_pro, gpqa
                            (.jsonl); for multiple choice, the problem contains the options, and the answer
                            is a letter

Benchmarks with these names are shown with the numbers of the paper; others are measured too. This project has run
nothing of this, for lack of such a machine: the paper used 32 H100.

From the paper: 512 documents per step, 16 thoughts of up to 2048 tokens at temperature 0.7, constant learning
rate 1e-6, 200 steps to 170M tokens, context 2048; CPT with AdamW 0.9 / 0.95, weight decay 0.1, a cosine from
1e-6 to 1e-7, rows of 8192 tokens, 6M tokens per step (768 rows here); RLVR for one epoch, batches of 1024, a
cosine, 1e-6; sampled accuracy over 8 runs of a mathematical benchmark (4 of others, here 8 too).

Our choices, where the paper gives none: all settings of SFT but its data; group, length and temperature of RLVR,
and that its batch counts problems; the prompt of problems; responses of up to 4096 tokens; one verifier
(math-verify) for all benchmarks, whereas the paper used NeMo-Skills. The held-out documents of CPT are windows of
8192 tokens, so only its benchmark results can be compared with those of other runs.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import chains, qwen3_1p7b_rlp

CPT_ROWS, CPT_LENGTH = 768, 8192
BENCHMARKS = ("aime25", "math_500", "gsm8k", "amc23", "minerva", "mmlu", "mmlu_pro", "gpqa")

Fields = dict[str, Any]


def rlp_steps(tokens: float) -> int:
    """Return the steps of RLP for a number of document tokens; the paper takes 200 steps for 170M."""
    return round(tokens * 200 / 170e6)


def none() -> Fields:
    """Return the fields that evaluate the model itself."""
    return {"objective": "next_token", "steps": 0}


def rlp(tokens: float) -> Fields:
    """Return the fields of RLP on a number of tokens, with the recipe of the config."""
    return {"objective": "rlp", "steps": rlp_steps(tokens)}


def cpt(tokens: float) -> Fields:
    """Return the fields of continued pretraining on a number of tokens."""
    return {
        "objective": "next_token",
        "steps": round(tokens / (CPT_ROWS * CPT_LENGTH)),
        "batch_size": CPT_ROWS,
        "data.sequence_length": CPT_LENGTH,
        "optimizer.schedule": "cosine",
        "optimizer.final_share": 0.1,
        "optimizer.weight_decay": 0.1,
    }


def stages(data: str) -> dict[str, Fields]:
    """Return the stages after every start: SFT, then RLVR."""
    sft = {
        "objective": "next_token",
        "steps": 1500,
        "batch_size": 128,
        "data.train": "",
        "data.sft.train": f"{data}/sft",
        "data.sft.share": 1.0,
        "data.sft.messages_column": "conversations",
        "data.sequence_length": 16384,
        "optimizer.learning_rate": 1e-5,
        "optimizer.schedule": "cosine",
        "optimizer.warmup_steps": 75,
    }
    rlvr = {
        "objective": "rlvr",
        "steps": 7,  # an epoch: 7,168 of 7,500 problems
        "batch_size": 1024,
        "data.train": "",
        "data.problems.train": f"{data}/math",
        "optimizer.schedule": "cosine",
        "rlp.max_branches_in_flight": 1024,
        "rlp.update_micro_batch": 512,
    }
    return {"sft": sft, "rlvr": rlvr}


def chain(
    data: str, starts: dict[str, Fields], later: dict[str, Fields], model: str = "Qwen/Qwen3-1.7B-Base"
) -> ConfigDict:
    """Return the experiment of a table: the `later` stages on each start, all from `model`."""
    config = qwen3_1p7b_rlp.get_config()
    config.init_from = model
    config.data.train = f"{data}/documents"

    config.data.problems.evaluation = f"{data}/benchmarks"
    config.data.problems.instruction = (
        "{problem}\nPlease reason step by step, and put your final answer within \\boxed{}."
    )
    config.data.problems.response_length = 4096  # L of responses

    config.evaluation.every = 0  # at the end of a run only, because benchmarks take long
    config.evaluation.documents = 256
    config.evaluation.problems = 15000  # all: MMLU has 14,042
    config.evaluation.responses = 8

    config.arms = chains.arms(starts, later)
    return config
