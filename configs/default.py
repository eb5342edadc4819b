"""Every field of a run: its type, default, meaning and possible values.

A config file starts from `get_config()` and changes fields:

    config = default.get_config()
    config.rlp.group_size = 8

`launch.train` refuses a field that is not defined here and suggests the nearest one that is.
`python -m launch.train --config=<file> --print_config` prints all fields with the values of a config file.

`unit` is the unit of the value and `symbol` its symbol in the RLP paper (arXiv 2510.01265). `choices` lists
the allowed values of a string, and `special` lists values with a special meaning. A `count` is an integer of
at least 1 that is stored as int32 on devices; a `fraction` is a number from 0 to 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from configs.fields import Group, config_dict, count, field, fraction, options, read


@dataclass(frozen=True)
class Run(Group):
    """What is trained, from which start, and for how long: `config.seed`, `config.objective` and so on."""

    seed: int = field(0, "seed of all randomness: parameters, data order, forks, thoughts", at_least=0,
        at_most=2**32 - 1)
    objective: str = field("next_token", 'what is optimized: "next_token", "rlp", another objective of '
        'docs/objectives.md, or your own as "<module>:<name>"')
    init_from: str = field("", 'run or model that provides the initial parameters, architecture and '
        'tokenizer: "<workdir>", "<workdir>@<step>", "<workdir>@best", a Hugging Face folder or hub name, or '
        'a GGUF file; an arm can name another arm', special={"": "fresh parameters"})
    steps: int = count(1000, "training steps; ignored if `match` is set; one RLP step is one rollout and its "
        "updates", at_least=0, special={0: "only evaluate the model of init_from"})
    batch_size: int = count(16, "documents (rlp) or rows (next_token) per step", symbol="B")
    match: str = field("", '"<workdir>:flops", ":tokens" (document tokens) or ":seconds" (device seconds): '
        'stop at the step closest to the amount that this finished run used, instead of after `steps`; an arm '
        'can name another arm; requires optimizer.schedule="constant", except for next_token with flops')
    max_bad_steps: int = field(5, "consecutive non-finite losses or gradients before the run stops",
        unit="steps", at_least=1)


@dataclass(frozen=True)
class Rope(Group):
    """Rotary position embeddings (RoPE) of the network."""

    theta: float = field(1e4, "base of the rotary frequencies", above=0)
    local_theta: float = field(0.0, "base in local layers, whose frequencies are never scaled", at_least=0,
        special={0: "same as theta"})
    scaling: str = field("none", "how frequencies are scaled for a longer context",
        choices=("none", "linear", "llama3", "yarn"))
    factor: float = field(1.0, "factor by which the context was extended")
    original_length: int = field(0, "context length before the extension (llama3, yarn)", unit="tokens")
    low_frequency_factor: float = field(1.0, "llama3: pairs with fewer rotations in original_length are "
        "divided by factor")
    high_frequency_factor: float = field(4.0, "llama3: pairs with more rotations are not scaled")
    beta_fast: float = field(32.0, "yarn: pairs with more rotations in original_length are not scaled")
    beta_slow: float = field(1.0, "yarn: pairs with fewer rotations are divided by factor")
    attention_factor: float = field(0.0, "yarn: scale of queries and keys", at_least=0,
        special={0: "1 + ln(factor) / 10"})
    partial_rotary_factor: float = field(1.0, "share of the dimensions of a head that are rotated", above=0,
        at_most=1)


@dataclass(frozen=True)
class Model(Group):
    """The network, and how it is computed; with init_from only the last four fields are used."""

    vocab_size: int = count(0, "rows of the embedding", symbol="V", at_least=0,
        special={0: "size of the tokenizer, rounded up to a multiple of 64"})
    hidden_size: int = field(128, "width of the residual stream", symbol="D", at_least=1)
    num_layers: int = field(2, "transformer blocks", at_least=1)
    num_heads: int = field(4, "query heads", at_least=1)
    num_kv_heads: int = field(4, "key and value heads; must divide num_heads", at_least=1)
    head_dim: int = field(32, "width of a head; must be even", at_least=1)
    ffn_size: int = field(256, "inner width of the feed-forward layer", at_least=1)
    activation: str = field("silu", "activation of the feed-forward, of its gate if it has one",
        choices={"silu": "", "gelu_tanh": "", "relu2": "the square of relu (Nemotron-H)"})
    norm: str = field("before", "position of RMSNorm", choices={"before": "each sublayer",
        "after": "each sublayer (OLMo 2)", "around": "each sublayer: before and after it (Gemma 3)"})
    zero_centered_norm: bool = field(False, "norms scale by 1 + their parameter (Gemma 3)")
    norm_epsilon: float = field(1e-6, "added to the mean square in RMSNorm", above=0)
    qk_norm: str = field("head", "RMSNorm of queries and keys", choices={"none": "",
        "head": "per head (Qwen3)", "all_heads": "over all heads as one vector (OLMo 2)"})
    qkv_bias: bool = field(False, "add a bias to queries, keys and values (Qwen 2)")
    attention_gate: bool = field(False, "multiply the output of attention by a sigmoid of its input (Qwen3.5)")
    query_pre_attn_scalar: float = field(0.0, "attention scores are divided by the square root of this",
        at_least=0, special={0: "head_dim"})
    sliding_window: int = field(0, "number of tokens that a local layer attends to", unit="tokens", at_least=0,
        special={0: "no local layers"})
    layer_pattern: str = field("G", 'G: global layer, L: local layer, each of attention and feed-forward; D: '
        'gated DeltaNet and feed-forward; as layers of their own M: Mamba-2, *: attention without positions, '
        '-: feed-forward without a gate; repeated to cover all layers ("LLLLLG": Gemma 3)')
    mamba_heads: int = field(0, "heads of a Mamba-2 layer", at_least=0)
    mamba_head_dim: int = field(64, "width of a head of Mamba-2", at_least=1)
    mamba_groups: int = field(8, "groups of these heads that share B and C; must divide mamba_heads", at_least=1)
    mamba_state: int = field(128, "size of the state of each dimension of a head", at_least=1)
    mamba_taps: int = field(4, "tokens that the convolution of Mamba-2 sees", unit="tokens", at_least=2)
    mamba_step_min: float = field(0.0, "least step of the recurrence", at_least=0)
    mamba_step_max: float = field(0.0, "largest step of the recurrence", at_least=0, special={0: "no limit"})
    delta_heads: int = field(0, "heads of the values of a DeltaNet layer", at_least=0)
    delta_head_dim: int = field(128, "width of such a head", at_least=1)
    delta_key_heads: int = field(16, "heads of its keys and queries; must divide delta_heads", at_least=1)
    delta_key_dim: int = field(128, "width of such a head", at_least=1)
    delta_taps: int = field(4, "tokens that the convolution of DeltaNet sees", unit="tokens", at_least=2)
    scale_embedding: bool = field(False, "multiply embeddings by sqrt(hidden_size) (Gemma 3)")
    tie_embeddings: bool = field(True, "use the embedding matrix for the output logits too")
    logit_softcap: float = field(0.0, "replace logits by cap * tanh(logits / cap)", at_least=0,
        special={0: "no cap"})
    rope: Rope = Rope()

    compute_dtype: str = field("float32", "dtype of activations and matmuls; parameters are float32",
        choices=("float32", "bfloat16"))
    remat: str = field("none", "activations that the backward pass recomputes", choices={"none": "",
        "block": "all but the residual stream", "dots": "all but the outputs of weight matmuls"})
    attention: str = field("", "implementation of attention",
        choices=("reference", "xla", "pallas_tpu", "pallas_gpu", "pallas_hopper"),
        special={"": "the best one for the backend"})
    state_dtype: str = field("float32", "dtype of the states of Mamba-2 and DeltaNet in caches",
        choices=("float32", "bfloat16"))


@dataclass(frozen=True)
class SFT(Group):
    """Prompts with responses; only the tokens of the responses are trained on (next_token only)."""

    train: str = field("", ".jsonl, .ndjson (also .gz and .zst) or .parquet; files, folders or globs, as in "
        "data.train", special={"": "none"})
    evaluation: str = field("", "held-out files, as in `train`",
        special={"": "every `holdout_every`-th row of `train`"})
    share: float = fraction(0.0, "share of the rows that are pairs; the others are documents of data.train, "
        "none with 1")
    prompt_column: str = field("", "column with the prompt: a string or a list of messages")
    response_column: str = field("", "column with the response: a string or a list of messages")
    messages_column: str = field("", 'instead of both: column with a list of {"role", "content"} or '
        '{"from", "value"} messages, or its JSON text; the messages of the assistant are trained on; roles: '
        'system, user, assistant, tool, or a common alias (human, gpt, …)')


@dataclass(frozen=True)
class Problems(Group):
    """Verifiable problems: for objectives over answers, and for `accuracy`."""

    train: str = field("", 'files as in data.sft.train, or "reasoning_gym:<dataset>?<option>=<value>" '
        '(docs/rlvr.md); only for objective="rlvr" and others over answers')
    evaluation: str = field("", 'held-out files, as in `train`, for any objective; "compass": held-out walks, '
        'with data.kind="compass"', special={"": "every `holdout_every`-th row of `train`, if that is set"})
    prompt_column: str = field("problem", "column with the problem")
    answer_column: str = field("answer", "column with the correct answer: a string or a number; for multiple "
        "choice a letter, the index of an option from 0, or its text")
    options_column: str = field("", 'column with a list of options, which the prompt shows as lines "A. …"',
        special={"": "none"})
    answer_marker: str = field("", 'the answer is the text after the last occurrence of this in that column '
        '("####")', special={"": "the whole text"})
    instruction: str = field("{problem}", "the prompt, in which {problem} is replaced by the problem")
    think: bool = field(True, "responses begin with the opening thinking tag, otherwise with what the chat "
        "template puts before them; a response whose thought is never closed has no answer")
    response_length: int = count(256, "maximum length of a sampled response, including the token that ends it",
        symbol="L", unit="tokens")
    verifier: str = field("math", '"math" (math-verify), "choice" (a letter of the options of the row), '
        '"exact", "reasoning_gym" (the scorer of a generated problem), or your own as "<module>:<name>" '
        '(docs/extending.md); rows whose own answer it rejects are skipped')
    time_limit: float = field(5.0, "time for checking one response; a response that takes longer has no answer",
        unit="seconds", above=0)
    memory_limit: float = field(2.0, "memory that a check can use beyond what its process needs to start; "
        "a response that needs more has no answer; enforced on Linux only", unit="GiB", at_least=0,
        special={0: "no limit"})
    step_time_limit: float = field(600.0, "time for checking all responses of a step or a held-out batch; "
        "responses not checked by then have no answer, and their number is logged", unit="seconds", at_least=0,
        special={0: "no limit"})
    workers: int = field(0, "processes that check responses", at_least=0,
        special={0: "one per core, at most 16"})
    planning: str = field("default", 'objective="hicra": planning phrases, "default" or a text file with '
        'one per line')


@dataclass(frozen=True)
class Lookahead(Group):
    """Copies of later text of a document, inserted between thinking tags (next_token only)."""

    share: float = fraction(0.0, "probability that a training document gets a lookahead; Trelawney: 0.5")
    length: int = field(16, "maximum length of the copied span", unit="tokens", at_least=1)
    distance: int = field(32, "maximum distance from the lookahead to the start of the copied span", unit=
        "tokens", at_least=0)


@dataclass(frozen=True)
class Compass(Group):
    """Generated documents of the demo (data.kind="compass")."""

    thought_share: float = fraction(0.0, "share of documents that contain a thought")
    musing_share: float = fraction(0.0, "share of those thoughts that contain no working")
    late_musing_share: float = fraction(0.0, "the same, from record `late_from`")
    late_from: int = field(0, "first record to which late_musing_share applies", unit="documents", at_least=0)
    anywhere_share: float = fraction(0.0, "share of thoughts at a random position of the document instead of "
        "before its answer")


@dataclass(frozen=True)
class Data(Group):
    """The source of documents, pairs and problems, and how they become rows of tokens."""

    kind: str = field("text", 'source of documents: "text" (files), "compass" (generated documents of '
        'the demo), or your own as "<module>:<name>"')
    train: str = field("", ".txt, .jsonl, .ndjson (also .gz and .zst) or .parquet: files, folders (links are "
        'followed) or globs, comma-separated; URLs (gs://) too; skipped files are logged; "reasoning_gym:<dataset>" '
        "generates documents (docs/data.md)")
    evaluation: str = field("", "held-out files, as in `train`",
        special={"": "every `holdout_every`-th training document"})
    holdout_every: int = field(20, "every n-th document is held out if `evaluation` is empty", unit="documents",
        at_least=1)
    text_column: str = field("text", "column of a .jsonl or .parquet file with the document")
    max_unusable_share: float = fraction(0.2, "maximum share of rows that are skipped because they cannot be "
        "used (a missing or null text, no response, an answer that the verifier rejects); the first three are "
        "logged; with more, the run is refused")
    max_row_bytes: int = field(2**30, "maximum size of a row of a file, or of a document of a .txt file; a "
        "larger one is refused", unit="bytes", at_least=1)
    max_decompression_ratio: float = field(250.0, "maximum bytes of content per byte of a .gz, .zst or "
        ".parquet file; a file that exceeds this and has over 64 MiB of content is refused", above=0)
    exclude_overlaps: str = field("", "task files (.jsonl, .ndjson, .parquet, .csv), as in `train`: a training "
        "document, pair or problem that shares 13 words in a row, or 13 words and numbers, with a problem of them "
        "is left out (docs/data.md)", special={"": "none"})
    txt_separator: str = field("", "splits a .txt file into documents; LF, CRLF and CR are equivalent, in "
        ".txt files and here", special={"": "each file is one document"})
    tokenizer: str = field("", '"bytes" or the path of a Hugging Face tokenizer folder',
        special={"": "the tokenizer of init_from, otherwise bytes"})
    bos: str = field("", 'token before every text (documents, each of their windows, prompts); "none": no '
        'token', special={"": "what the model's own tokenizer puts there"})
    eos: str = field("", "token that ends a text", special={"": "the tokenizer's eos_token"})
    separator: str = field("", "token after every document", special={"": "eos"})
    sequence_length: int = count(128, "length of a row; a longer document is cut into windows, a longer pair "
        "is skipped", symbol="T", unit="tokens")
    pack: bool = field(True, "pack several documents or pairs into a row (next_token only; an RLP row is one "
        "document)")
    fork_marker: str = field("", 'for positions="given", in training or evaluation: the fork is after the last '
        'occurrence of this text; LF, CRLF and CR are equivalent')
    chat_template: str = field("", 'for data.sft and data.problems: a Jinja file, or "none": the response '
        'directly follows the prompt; stored with the run and its exports', special={"": "the template of the "
        "tokenizer, if it has one"})
    sft: SFT = SFT()
    problems: Problems = Problems()
    lookahead: Lookahead = Lookahead()
    compass: Compass = Compass()


@dataclass(frozen=True)
class Optimizer(Group):
    """AdamW and its learning rate schedule."""

    learning_rate: float = field(3e-4, "learning rate at the peak of the schedule", at_least=0, held_as=
        "float32")
    schedule: str = field("constant", "schedule after the warm-up", choices=("constant", "cosine"))
    warmup_steps: int = field(0, "length of the linear warm-up, which starts at learning_rate / warmup_steps",
        unit="updates", at_least=0)
    final_share: float = fraction(0.05, "learning rate at the end of the cosine, as a share of the peak")
    beta1: float = field(0.9, "decay of the first moment", at_least=0, below=1, held_as="float32",
        why="with 1 the running mean never changes, and its bias correction divides by 0")
    beta2: float = field(0.95, "decay of the second moment", at_least=0, below=1, held_as="float32",
        why="with 1 the running mean never changes, and its bias correction divides by 0")
    epsilon: float = field(1e-8, "added to the square root of the second moment", above=0, held_as="float32",
        why="the update of a parameter without a gradient would divide by 0")
    weight_decay: float = field(0.0, "decoupled weight decay, of matrices only", at_least=0, held_as="float32")
    clip_norm: float = field(1.0, "the gradient is clipped to this global norm", at_least=0, held_as="float32",
        special={0: "no clipping"})


@dataclass(frozen=True)
class MethodFields(Group):
    """The fields of the method that its stages use directly; a run resolves the other ones of `RLP`."""

    group_size: int = count(16, "thoughts per fork", symbol="G")
    forks_per_document: int = count(1, "positions t per document at which thoughts are sampled", symbol="K")
    thought_length: int = count(64, "maximum length of a sampled thought, including its closing tag", symbol=
        "L", unit="tokens")
    min_thought_length: int = count(1, "minimum length of a thought without its closing tag, which is not "
        "sampled before", unit="tokens")
    horizon: int = count(1, "document tokens scored after the thought; the paper scores 1", symbol="H",
        unit="tokens")
    horizon_weighting: str = field("sum", "how the H log-likelihoods are combined", choices=("sum", "mean",
        "discount"))
    discount: float = fraction(0.9, 'factor per token, for horizon_weighting="discount"')
    temperature: float = field(0.7, "sampling temperature of the behavior policy pi_theta_old and of held-out "
        "thoughts; rewards use temperature 1", above=0)
    positions: str = field("uniform", "how the positions of thoughts (forks) are chosen", choices={"uniform":
        "", "stride": "", "loss": "highest first", "entropy": "highest first", "easy_to_hard": "", "band":
        "where the no-think loss of the target is in a band", "given": "by the data"})
    band_low: float = field(1.0, 'for positions="band": lowest mean no-think loss of the H target tokens, under '
        "phi (under theta without it)", unit="nats/token", at_least=0)
    band_high: float = field(4.5, "the highest; a document without such a position has a thought elsewhere that "
        "is not in the loss", unit="nats/token", above=0)
    hardest_at: int = count(1000, 'for positions="easy_to_hard": the step at which forks are where the '
        'no-think loss of the document is highest; at the first step, they are where it is lowest', unit=
        "steps")
    min_prefix: int = count(1, "minimum number of document tokens before a fork", unit="tokens")
    baseline: str = field("ema", "network that computes the baseline S_ema", symbol="phi", choices={"ema": "",
        "frozen": "the parameters at the start", "none": "no baseline pass"})
    ema_decay: float = fraction(0.999, "phi <- tau phi + (1 - tau) theta", symbol="tau")
    clip_low: float = field(0.2, "the ratio is clipped to at least 1 - epsilon_l", symbol="epsilon_l",
        at_least=0)
    clip_high: float = field(0.2, "the ratio is clipped to at most 1 + epsilon_h", symbol="epsilon_h",
        at_least=0)
    clip_dual: float = field(0.0, "dual clip: if the advantage A is negative, the objective is at least "
        "c A", symbol="c", above=1, special={0: "no bound"})
    ratio: str = field("token", "what is clipped", choices={"token": "the ratio of each token",
        "sequence": "the geometric mean of the ratios of a thought (GSPO, whose epsilons are 3e-4 and 4e-4)"})
    updates_per_rollout: int = field(1, "passes over a rollout, with one optimizer update per minibatch; "
        "above 1 the clip takes effect", at_least=1)
    minibatches: int = field(1, "parts of a batch with one optimizer update each; minibatch i of n has "
        "documents i, i + n, i + 2n, …; above 1 the clip takes effect", at_least=1)
    unclosed: str = field("mask", "treatment of thoughts that reach L without closing", choices={
        "append": "a closing tag is appended", "mask": "excluded from group and loss",
        "penalty": "see unclosed_penalty"})
    unclosed_penalty: float = field(1.0, 'subtracted from the reward, for unclosed="penalty"', unit="nats",
        at_least=0)
    reward_floor: float = field(0.0, "lower rewards are raised to this, before unclosed_penalty is subtracted",
        unit="nats", below=0, special={0: "no floor"})
    min_reward_std: float = field(0.0, "groups whose rewards have a smaller standard deviation are excluded "
        "from the loss (as in DAPO, without resampling)", unit="nats", at_least=0)
    advantages: str = field("", "advantages of the thoughts of a group", choices={"leave_one_out": "eq. 4",
        "standardized": "GRPO", "jensen": "JEPO"}, special={"": "the default of the objective"})
    length_normalization: str = field("thought", "divisor of the loss of a thought",
        choices={"thought": "|c|", "limit": "L", "none": "1"})
    kl_weight: float = field(0.0, "weight of the KL divergence from the initial network (nats per action) in "
        "the loss; above 0 it costs a copy of the parameters and a forward pass", symbol="beta",
        at_least=0)
    target_weight: float = field(0.0, "weight in the loss of the target's negative log-likelihood after its "
        "thoughts (nats, weighted like the evidence)", symbol="lambda", at_least=0)
    next_token_weight: float = field(0.0, "weight in the loss of the documents' next-token loss (nats per "
        "token); costs only the additional logits", symbol="lambda", at_least=0)
    planning_weight: float = field(0.2, 'objective="hicra": planning tokens have the advantage A + alpha |A|',
        symbol="alpha", at_least=0)
    max_branches_in_flight: int = field(0, "maximum number of thoughts sampled at once, over all devices; "
        "limits the memory of the caches", at_least=0, special={0: "all of a step"})
    update_micro_batch: int = field(0, "maximum number of thoughts per backward pass, over all devices; "
        "limits the memory of the activations", at_least=0, special={0: "all of a step"})
    rollout_layout: str = field("gathered", "parameters that a rollout reads",
        choices={"gathered": "a copy in compute_dtype, gathered over fsdp once per step",
        "training": "sharded as in training"})
    baseline_memory: str = field("device", "memory that holds phi and the reference of the KL term while they "
        "are not in use", choices=("device", "host"))


@dataclass(frozen=True)
class RLP(MethodFields):
    """The method; its stages receive the prompt as token ids and the schedule as numbers
    (`rlp.engine.step.RLPSettings`)."""

    prompt: str = field("default", 'prompt between BOS and document when thinking: "default", "none" or a '
        'text file')
    thought_length_schedule: str = field("", 'maximum length of thoughts in training by the number of steps '
        'taken, "STEP:TOKENS,…": "0:64,500:128" is 64 tokens before step 500 is taken and 128 from then on, '
        'of at most thought_length, which sets the shapes', special={"": "always thought_length"})


@dataclass(frozen=True)
class Evaluation(Group):
    """What is measured on held-out data, and how often."""

    every: int = field(0, "steps between held-out evaluations during training", unit="steps", at_least=0,
        special={0: "at the end only"})
    documents: int = field(64, "held-out documents, and the same number of held-out pairs of data.sft", unit=
        "documents", at_least=1)
    positions: str = field("", "positions of held-out thoughts", choices=("uniform", "given"),
        special={"": '"given" if rlp.positions is "given", otherwise "uniform"'})
    forks_per_document: int = count(1, "positions per held-out document")
    thoughts: int = count(4, "sampled thoughts per position")
    problems: int = field(64, "held-out problems per file of data.problems", at_least=1)
    responses: int = count(4, "sampled responses per problem, at rlp.temperature, besides a greedy one")
    browse_documents: int = field(2, "documents in the report's thought browser", unit="documents",
        at_least=1)
    browse_positions: int = field(32, "maximum positions per document in the thought browser", at_least=1)
    suite: str = field("", 'benchmarks: a suite or tasks with commas, as --suite of launch.evaluate '
        '("gsm8k,mmlu"); docs/evaluation.md', special={"": "none"})
    suite_data: str = field("", "folder that has the files of the benchmarks of `suite`")
    suite_every: int = field(0, "steps between evaluations of `suite` during training", unit="steps",
        at_least=0, special={0: "at the end only"})
    suite_limit: int = field(0, "maximum number of problems per benchmark of `suite`, evenly spread over its "
        "file", at_least=0, special={0: "all"})
    suite_max_tokens: int = field(0, "maximum length of a response to a problem of `suite`", unit="tokens",
        at_least=0, special={0: "that of the benchmark, or what the context of the model leaves"})
    suite_prompt: str = field("", "names of prompts, with commas; a benchmark of `suite` uses the first one that "
        "it has", special={"": "the first for chats with a chat template, otherwise the first for base models"})
    suite_think: bool = field(False, "responses to `suite` begin with the opening thinking tag, and options are "
        "scored after `thoughts` thoughts of at most rlp.thought_length tokens")
    suite_likelihood: bool = field(False, "options of `suite` are chosen by their log-likelihood instead of "
        "generating answers")
    best_metric: str = field("", 'held-out metric that selects the best checkpoint; with `suite` also '
        '"benchmark/accuracy", the mean over its benchmarks, and others of docs/metrics.md', special={"":
        "think_loss (rlp), accuracy (rlvr and others over answers), response_loss (data.sft.share=1) or "
        "document_loss"})


@dataclass(frozen=True)
class Checkpoint(Group):
    """When checkpoints are saved, and how many are kept."""

    every: int = field(200, "steps between checkpoints; evaluated steps and the last step are saved too",
        unit="steps", at_least=1)
    keep: int = field(2, "latest checkpoints to keep, besides the best one", at_least=1)


@dataclass(frozen=True)
class Mesh(Group):
    """How the devices are arranged in a mesh."""

    data: int = field(-1, "devices along the batch", at_least=1, special={-1: "all remaining devices"})
    fsdp: int = field(1, "devices along the batch that also shard the parameters", at_least=1,
        special={-1: "all remaining devices"})
    tensor: int = field(1, "devices that split heads and feed-forward layers", at_least=1,
        special={-1: "all remaining devices"})


@dataclass(frozen=True)
class Profile(Group):
    """Profiling, which changes no result (docs/debugging.md)."""

    steps: str = field("", '"FIRST:END": steps FIRST to END - 1 are traced with jax.profiler into '
        '<workdir>/profile ("10:13": steps 10, 11 and 12)', special={"": "no trace"})


@dataclass(frozen=True)
class Config(Run):
    """All fields of a run with types: `Config.of(config).rlp.group_size`."""

    objective_options: Mapping[str, Any] = options()  # declared by the objective
    model: Model = Model()
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    rlp: RLP = RLP()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    mesh: Mesh = Mesh()
    profile: Profile = Profile()

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Config":
        """Return the typed settings of the ConfigDict of a run, without other fields (`arms`)."""
        return read(cls, config)


def get_config() -> ConfigDict:
    """Return the default config: the paper's algorithm, with a model small enough for a laptop."""
    return config_dict(Config)
