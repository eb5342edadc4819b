"""Every invalid value is refused with a one-line message before anything is written."""

import re

import pytest

from rlp.run import loop
from rlp.runtime.errors import UserError
from tests.support import runs
from tests.support.settings import KNOWN, LONE, PAIRS, RLP, RLVR

BAD = {
    "an unknown objective": ({"objective": "rlvl"}, "objective='rlvl' is unknown; use one of next"),
    "an unknown attention": ({"model.attention": "flash"}, "model.attention='flash' is unknown"),
    "an unknown metric": ({"evaluation.best_metric": "bleu"}, "best_metric='bleu' is unknown"),
    "a mean that never moves": ({"optimizer.beta2": 1.0}, "optimizer.beta2=1.0; it must be in [0"),
    "a mean that never moves in float32": (
        {"optimizer.beta1": 1 - 1e-9},
        "optimizer.beta1=0.999999999, which is 1 in float32; it must be in [0, 1): with 1",
    ),
    "a negative mean": ({"optimizer.beta1": -0.1}, "optimizer.beta1=-0.1; it must be in [0, 1)"),
    "an epsilon that is 0 in float32": ({"optimizer.epsilon": 1e-46}, "which is 0 in float32"),
    "an epsilon of 0": ({"optimizer.epsilon": 0.0}, "optimizer.epsilon=0.0; it must be above 0"),
    "an infinite epsilon": ({"optimizer.epsilon": 1e39}, "optimizer.epsilon=1e+39, which is inf"),
    "an infinite learning rate": ({"optimizer.learning_rate": 1e39}, "is infinite in float32"),
    "a negative learning rate": ({"optimizer.learning_rate": -1.0}, "it must not be negative"),
    "an infinite decay": ({"optimizer.weight_decay": 1e39}, "is infinite in float32; lower it"),
    "an infinite norm": ({"optimizer.clip_norm": 1e39}, "set it to 0 for no clipping"),
    "a negative norm": ({"optimizer.clip_norm": -1.0}, "it must not be negative"),
    "a share above 1": ({"optimizer.final_share": 1.5}, "it must be in [0, 1]"),
    "a negative warm-up": ({"optimizer.warmup_steps": -1}, "it must not be negative"),
    "nothing to train or to evaluate": ({"steps": 0}, "set init_from, or set steps to 1 or more"),
    "nothing to compare with": (LONE, "set group_size to 2 or more, or rlp.baseline to 'ema'"),
    "no documents": ({"data.train": ""}, "data.train is empty; set --config.data.train=<file"),
    "no such documents": (
        {"data.train": "no/such.txt"},
        "data.train: file or folder not found: no/such",
    ),
    "no such held-out documents": ({"data.evaluation": "no/such.txt"}, "data.evaluation: file"),
    "a minimum above the maximum": (
        {"rlp.min_thought_length": 5},
        "rlp.min_thought_length=5 is more than rlp.thought_length=4; lower it, or raise",
    ),
    "a schedule of words": (
        {"rlp.thought_length_schedule": "short:4"},
        "rlp.thought_length_schedule='short:4' is not 0:TOKENS,STEP:TOKENS,… with rising steps",
    ),
    "a schedule that begins late": (
        {"rlp.thought_length_schedule": "1:4"},
        "rlp.thought_length_schedule='1:4' is not 0:TOKENS,STEP:TOKENS,… with rising steps",
    ),
    "a schedule that goes back": (
        {"rlp.thought_length_schedule": "0:2,5:3,5:4"},
        "rlp.thought_length_schedule='0:2,5:3,5:4' is not 0:TOKENS,STEP:TOKENS,…",
    ),
    "a schedule above the maximum": (
        {"rlp.thought_length_schedule": "0:2,5:8"},
        "rlp.thought_length_schedule='0:2,5:8' has the limit 8; it must be between rlp.min_thought_"
        "length=1 and rlp.thought_length=4",
    ),
    "a schedule without room to close": (
        {"rlp.thought_length_schedule": "0:1,5:4", "rlp.unclosed": "mask"},
        "rlp.thought_length_schedule='0:1,5:4' leaves no room for a closing tag of 1 token after a "
        "word, so rlp.unclosed='mask' would mask everything; set thought_length_schedule to 2 or",
    ),
    "a minimum without room to close": (
        {"rlp.min_thought_length": 4, "rlp.unclosed": "mask"},
        "rlp.thought_length=4 leaves no room for a closing tag of 1 token after rlp.min_thought_"
        "length=4 tokens, so rlp.unclosed='mask' would mask everything; set thought_length to 5",
    ),
    "a band upside down": (
        {"rlp.positions": "band", "rlp.band_low": 5.0},
        "rlp.band_low=5.0 is not below rlp.band_high=4.5; lower it, or raise band_high",
    ),
    "a floor above 0": ({"rlp.reward_floor": 1.0}, "rlp.reward_floor=1.0; it must be below 0"),
    "a group of one that must differ": (
        RLP | {"rlp.group_size": 1, "rlp.min_reward_std": 0.1},
        "rlp.min_reward_std=0.1 would exclude every group, since rlp.group_size=1; set it to 0",
    ),
    "no place for a fork": ({"rlp.positions": "given"}, "needs data.fork_marker"),
    "a marker that never comes": (
        {"rlp.positions": "given", "data.fork_marker": "~~"},
        "document contains data.fork_marker='~~'",
    ),
    "rows too short for their forks": (
        RLP | {"rlp.min_prefix": 20, "rlp.horizon": 8},
        "data.sequence_length=24 is shorter than the 28 tokens",
    ),
    "two held-out forks at a given place": (
        {"evaluation.positions": "given", "evaluation.forks_per_document": 2},
        "evaluation.forks_per_document=2; evaluation.positions='given' has one fork per document",
    ),
    "no place for a held-out fork": (
        {"evaluation.positions": "given"},
        "evaluation.positions='given' needs data.fork_marker",
    ),
    "two forks at a given place": (
        {"rlp.positions": "given", "data.fork_marker": " ", "rlp.forks_per_document": 2},
        "rlp.forks_per_document=2; rlp.positions='given' has one fork per document",
    ),
    "no such tokenizer": ({"data.tokenizer": "no/such"}, "tokenizer='no/such' is not a folder"),
    "a separator for bytes": ({"data.separator": "."}, "data.separator='.'; the byte tokenizer"),
    "a vocabulary too small": ({"model.vocab_size": 64}, "smaller than the tokenizer's 261 ids"),
    "heads that do not share": (
        {"model.num_kv_heads": 3},
        "model.num_heads=2 is not a multiple of",
    ),
    "a kernel of another device": (
        {"model.attention": "pallas_tpu"},
        "model.attention='pallas_tpu' is not available: it needs a TPU, and this is a CPU",
    ),
    "an unknown precision": ({"model.compute_dtype": "fp8"}, "model.compute_dtype='fp8'"),
    "no such prompt": ({"rlp.prompt": "no/such.txt"}, "rlp.prompt='no/such.txt' is not a file"),
    "no such start": ({"init_from": "no/such/run"}, "no such folder: no/such/run"),
    "no such model": (
        {"init_from": "no/such"},
        "no/such is not a folder, and cannot be fetched from the hub (no",
    ),
    "a match without a run": ({"match": "flops"}, "match='flops' is not '<workdir>:flops'"),
    "a match of something else": ({"match": "a:steps"}, "match='a:steps' is not '<workdir>:flop"),
    "a match that is not finished": ({"match": "no/such:flops"}, "no/such is not a finished run"),
    "a cosine to an end that nobody knows": (
        {"match": "a:tokens", "optimizer.schedule": "cosine"},
        "match='a:tokens': the number of steps is not known in advance, but optimizer.schedule="
        "'cosine' needs it; set optimizer.schedule to 'constant'",
    ),
    "a cosine of rollouts": (
        RLP | {"match": "a:flops", "optimizer.schedule": "cosine"},
        "match='a:flops': the number of steps is not known in advance",
    ),
    "rollout batches too small for a group": (
        RLP
        | {"rlp.group_size": 4, "rlp.max_branches_in_flight": 6, "mesh.data": 2, "mesh.fsdp": 4},
        "rlp.max_branches_in_flight=6 is too small: each of 8 device(s) that split the batch needs "
        "at least 4 branches of a document; set it to 32 or more, or to 0",
    ),
    "micro-batches too small for a mesh": (
        RLP | {"rlp.update_micro_batch": 4, "mesh.data": 8},
        "rlp.update_micro_batch=4 is too small",
    ),
    "minibatches that devices cannot share": (
        RLP | {"rlp.minibatches": 2, "mesh.data": 8},
        "batch_size=8 is not a multiple of 16: rlp.minibatches=2 times the 8 device(s) that share "
        "each minibatch; change one of them",
    ),
    "micro-batches too small for a minibatch": (
        RLP | {"batch_size": 32, "rlp.minibatches": 4, "rlp.update_micro_batch": 7, "mesh.data": 8},
        "rlp.update_micro_batch=7 is too small",
    ),
    "a batch that does not split": (
        {"batch_size": 12, "mesh.data": 8},
        "batch_size=12 is not a multiple of the 8 devices that share a batch (mesh.data=8, "
        "mesh.fsdp=1)",
    ),
    "a mesh of other devices": ({"mesh.data": 3}, "mesh.data=3, mesh.fsdp=1, mesh.tensor=1 does"),
    "two sizes of all devices": ({"mesh.fsdp": -1}, "at most one size can be -1"),
    "no device at all": ({"mesh.fsdp": 0}, "mesh.fsdp=0; it must be at least 1, or -1"),
    "a mesh that shapes do not fit": (
        {"mesh.tensor": 8, "model.ffn_size": 36},
        "ffn=36 of parameter blocks/ffn/",
    ),
    "pairs without a share": (
        {"data.sft.train": "a.jsonl"},
        "data.sft.train='a.jsonl' does not match data.sft.share=0.0; set both",
    ),
    "a share without pairs": (
        {"data.sft.share": 0.5},
        "data.sft.train='' does not match data.sft.share=0.5",
    ),
    "pairs alone beside documents": (PAIRS | {"data.sft.share": 1.0}, "data.sft.share=1 leaves no"),
    "pairs for thoughts": (
        PAIRS | RLP,
        "is only for objective='next_token'; set it to 0",
    ),
    "half a pair": (
        PAIRS | {"data.sft.response_column": ""},
        "set either data.sft.prompt_column",
    ),
    "two forms of pairs": (
        PAIRS | {"data.sft.messages_column": "m"},
        "set either data.sft.prompt",
    ),
    "a metric without pairs": (
        {"evaluation.best_metric": "response_loss"},
        "evaluation.best_metric='response_loss' is not measured with objective='next_token' and "
        "data.sft.share=0.0",
    ),
    "a metric of documents without any": (
        PAIRS | {"data.sft.share": 1.0, "data.train": "", "evaluation.best_metric": "think_loss"},
        "evaluation.best_metric='think_loss' is not measured with objective='next_token' and "
        "data.sft.share=1.0",
    ),
    "no such pairs": (PAIRS, "data.sft.train: file or folder not found: a.jsonl"),
    "a template for pairs of bytes": (
        PAIRS | {"data.chat_template": "no/such"},
        "data.chat_template='no/such': the byte tokenizer does not support chat templates",
    ),
    "lookaheads for thoughts": (
        RLP | {"data.lookahead.share": 0.5},
        "data.lookahead.share=0.5 is only for objective='next_token', but objective='rlp' needs",
    ),
    "lookaheads in pairs alone": (
        PAIRS | {"data.sft.share": 1.0, "data.train": "", "data.lookahead.share": 0.5},
        "data.lookahead.share=0.5 is a share of the documents, but data.sft.share=1 leaves none",
    ),
    "an objective without its problems": (
        RLVR | {"data.problems.train": ""},
        "objective='rlvr' trains on problems; set data.problems.train to their files",
    ),
    "problems for thoughts": (
        RLP | {"data.problems.train": "a.jsonl"},
        "data.problems.train='a.jsonl' is not for objective='rlp', which does not train on "
        "problems; set objective to 'rlvr', or use data.problems.evaluation",
    ),
    "problems for next tokens": (
        {"data.problems.train": "a.jsonl"},
        "data.problems.train='a.jsonl' is not for objective='next_token'",
    ),
    "documents beside problems": (
        RLVR | {"data.train": "a.txt"},
        "objective='rlvr' trains on problems and reads no documents; set data.train and",
    ),
    "held-out documents beside problems": (
        RLVR | {"objective": "ttrl", "data.evaluation": "a.txt"},
        "objective='ttrl' trains on problems and reads no documents",
    ),
    "pairs beside problems": (
        RLVR | PAIRS,
        "is only for objective='next_token'; set it to 0",
    ),
    "a target behind a response": (
        RLVR | {"rlp.target_weight": 0.5},
        "rlp.target_weight=0.5: no text follows a response of objective='rlvr'; set it to 0",
    ),
    "an instruction without its problem": (
        RLVR | {"data.problems.instruction": "Think."},
        "data.problems.instruction='Think.' does not contain {problem}, the placeholder of",
    ),
    "a problem without a column": (
        RLVR | {"data.problems.prompt_column": ""},
        "data.problems.prompt_column=''; set it to the name of the column",
    ),
    "an answer without a column": (
        {"data.problems.evaluation": "a.jsonl", "data.problems.answer_column": ""},
        "data.problems.answer_column=''; set it to the name of the column",
    ),
    "single tokens of whole responses": (
        RLVR | {"objective": "hicra", "rlp.ratio": "sequence"},
        "objective='hicra' weights single tokens, but rlp.ratio='sequence' weights whole responses",
    ),
    "one response with nothing to compare with": (
        RLVR | {"rlp.group_size": 1, "rlp.advantages": "leave_one_out", "rlp.baseline": "ema"},
        "leaves no other response in the group, and answers have no other baseline; set group_size "
        "to 2 or more",
    ),
    "one response and its standard deviation": (
        RLVR | {"rlp.group_size": 1},
        "rlp.group_size=1 leaves no other sample in the group to compare with; set group_size to 2",
    ),
    "a metric of documents of a run of problems": (
        RLVR | {"evaluation.best_metric": "think_loss"},
        "evaluation.best_metric='think_loss' is not measured with objective='rlvr' and data.sft.s",
    ),
    "a metric of problems without any": (
        {"evaluation.best_metric": "accuracy"},
        "evaluation.best_metric='accuracy' is not measured with objective='next_token' and data.s",
    ),
    "an unknown verifier": (
        RLVR | {"data.problems.verifier": "maths"},
        "data.problems.verifier='maths' is unknown; use one of math, choice, exact,",
    ),
    "a verifier that is none": (
        {"data.problems.evaluation": "a.jsonl", "data.problems.verifier": "rlp.run.loop:LOGGER"},
        "data.problems.verifier='rlp.run.loop:LOGGER' is not a rlp.answers.verifiers.Verifier",
    ),
    "a majority of a function's numbers": (
        RLVR
        | {"objective": "ttrl", "data.problems.verifier": "tests.support.bad_verifiers:number"},
        "objective='ttrl' rewards the majority answer, but the function data.problems.verifier=",
    ),
    "an opening that no template gives": (
        RLVR | {"data.problems.think": False},
        "data.problems.think=False needs a chat template, whose last token starts the response",
    ),
    "a template for bytes": (
        RLVR | {"data.chat_template": __file__},
        "the byte tokenizer does not support chat templates",
    ),
    "a template of responses for bytes": (
        RLVR | {"data.chat_template": "no/such"},
        "data.chat_template='no/such': the byte tokenizer does not support chat templates",
    ),
    "no such phrases": (
        RLVR | {"objective": "hicra", "data.problems.planning": "no/such"},
        "data.problems.planning='no/such' is not a file; name a file, or use 'default'",
    ),
    "responses that cannot end": (
        RLVR | {"data.problems.response_length": 1, "rlp.unclosed": "mask"},
        "data.problems.response_length=1 leaves no room for an end of 1 token after a word",
    ),
    "rollout batches too small for responses": (
        RLVR | {"rlp.group_size": 4, "rlp.max_branches_in_flight": 3},
        "rlp.max_branches_in_flight=3 is too small: each of 8 device(s) that split the batch needs "
        "at least 4 branches of a document",
    ),
    "no such problems": (RLVR, "data.problems.train: file or folder not found: a.jsonl"),
    "no such held-out problems": (
        {"data.problems.evaluation": "a.jsonl"},
        "data.problems.evaluation: file or folder not found: a.jsonl",
    ),
    "a negative seed": ({"seed": -1}, "seed=-1; it must be in [0, 4294967295]"),
}
BAD_COMPASS = {
    "a bos": ({"data.bos": "none"}, "data.bos='none'; compass has fixed special tokens"),
    "an eos": ({"data.eos": "."}, "data.eos='.'; compass has fixed special tokens"),
    "a separator": ({"data.separator": "."}, "data.separator='.'; compass has fixed special"),
    "rows too short": (
        {"data.sequence_length": 21},
        "data.sequence_length=21 is too short for compass; set it to 22 or more",
    ),
    "rows too short to think": (
        {"data.compass.thought_share": 0.5, "data.sequence_length": 31},
        "data.sequence_length=31 is too short for compass; set it to 32 or more",
    ),
    "a prompt": ({"rlp.prompt": "default"}, "compass does not support a thinking prompt"),
    "a template": (
        {"data.chat_template": "a.jinja"},
        "data.chat_template='a.jinja'; compass does not support chat templates: set it to ''",
    ),
    "problems from files": (
        {"data.problems.train": "a.jsonl"},
        "data.problems.train='a.jsonl' with data.problems.evaluation=''; compass generates its "
        "problems: set data.problems.train to ''",
    ),
    "held-out problems from files": (
        {"objective": "rlvr", "data.problems.evaluation": "a.jsonl"},
        "data.problems.train='' with data.problems.evaluation='a.jsonl'; compass generates its",
    ),
    "an opening that nobody puts there": (
        {"objective": "rlvr", "data.problems.think": False},
        "data.problems.think=False needs a chat template",
    ),
    "phrases of words": (
        {"objective": "hicra"},
        "objective='hicra' finds phrases in the bytes of tokens, which this tokenizer does not",
    ),
    "pairs from files": (
        {"data.sft.train": "a.jsonl", "data.sft.share": 1.0},
        "data.sft.train='a.jsonl' with data.sft.share=1.0; compass generates its pairs",
    ),
    "a mixture of walks": (
        {"data.sft.share": 0.5},
        "data.sft.train='' with data.sft.share=0.5; compass generates its pairs",
    ),
    "pairs for thoughts": (
        RLP | {"data.sft.share": 1.0},
        "is only for objective='next_token'; set it to 0",
    ),
    "a metric of problems that nobody asks": (
        RLP | {"evaluation.best_metric": "majority_accuracy"},
        "evaluation.best_metric='majority_accuracy' is not measured with objective='rlp'",
    ),
    "more forks than tokens": (
        RLP | {"rlp.positions": "uniform", "rlp.forks_per_document": 21, "rlp.horizon": 2},
        "rlp.min_prefix=1 with rlp.horizon=2 and 21 forks exceeds the 22 tokens",
    ),
    "more held-out forks than tokens": (
        {"rlp.positions": "uniform", "evaluation.forks_per_document": 22},
        "rlp.min_prefix=1 with rlp.horizon=1 and 22 forks exceeds the 22 tokens",
    ),
}


def refused(config, message, tmp_path):
    """Check that a config is refused with a one-line message and nothing is written."""
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        loop.train(config, tmp_path / "run", report=False)
    assert caught.value.field in KNOWN
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_leaves_nothing(case, tmp_path, text):
    changes, message = BAD[case]
    refused(runs.config(runs.TEXT, text, {"batch_size": 8}, changes), message, tmp_path)


@pytest.mark.parametrize("case", BAD_COMPASS)
def test_bad_input_for_the_compass_is_named_and_leaves_nothing(case, tmp_path):
    changes, message = BAD_COMPASS[case]
    refused(runs.config(runs.COMPASS, {"batch_size": 8}, changes), message, tmp_path)


def test_a_prompt_that_is_no_text_is_refused(tmp_path, text):
    (tmp_path / "prompt").write_bytes(b"\xff\xfe\x00")
    prompt = {"rlp.prompt": str(tmp_path / "prompt"), "batch_size": 8}
    refused(runs.config(runs.TEXT, text, prompt), "prompt' cannot be read", tmp_path)


def test_a_folder_that_is_a_file_is_refused(tmp_path, text):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UserError, match="run is a file; give a folder"):
        loop.train(runs.config(runs.TEXT, text), tmp_path / "run", report=False)
    assert (tmp_path / "run").read_text() == "mine"
