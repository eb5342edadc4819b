"""Every field of a run: its type, its default, what it means, and the values it can have.

A config file starts from `get_config()` and changes what it needs:

    config = default.get_config()
    config.rlp.group_size = 8

A field that is not here does not exist: `launch.train` refuses it and names the nearest one that
does. `python -m launch.train --config=<file> --print_config` shows what a config file makes of them.

`unit` is the unit of a value, `symbol` its symbol in the RLP paper (arXiv 2510.01265), `choices` are the
only values of a text, `special` values mean something of their own, `count` is a whole number of at
least 1 that devices hold in int32, and `fraction` a number from 0 to 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from configs.fields import Group, config_dict, count, field, fraction, options, read


@dataclass(frozen=True)
class Run(Group):
    """What is trained, from what, and for how long: `config.seed`, `config.objective` and so on."""

    seed: int = field(0, "root of all randomness: parameters, data order, forks, thoughts", at_least=0,
        at_most=2**32 - 1)
    objective: str = field("next_token", 'what is optimised: "next_token", "rlp", another one of '
        'docs/objectives.md, or "<module>:<name>" of your own')
    init_from: str = field("", 'what to start from, network and tokenizer included: "<workdir>", '
        '"<workdir>@<step>", "<workdir>@best", a Hugging Face folder or hub name, or a GGUF file; an arm may '
        'name an arm', special={"": "fresh parameters"})
    steps: int = count(1000, "training steps, unless `match` says where to end; one RLP step is one rollout "
        "and its updates", at_least=0, special={0: "evaluate what init_from names"})
    batch_size: int = count(16, "documents (rlp) or rows (next_token) in a step", symbol="B")
    match: str = field("", '"<workdir>:flops", ":tokens" (of documents) or ":seconds" (times devices): end, '
        'whatever `steps`, at the step nearest to what that finished run used; an arm may name an arm; '
        'except for next_token with flops it needs optimizer.schedule="constant"')
    max_bad_steps: int = field(5, "consecutive non-finite losses or gradients before the run stops",
        unit="steps", at_least=1)


@dataclass(frozen=True)
class Rope(Group):
    """Rotary positions of the network."""

    theta: float = field(1e4, "base of the rotary frequencies", above=0)
    local_theta: float = field(0.0, "base in local layers, which are never scaled", at_least=0,
        special={0: "the same base as everywhere"})
    scaling: str = field("none", "how frequencies are stretched for a longer context",
        choices=("none", "linear", "llama3", "yarn"))
    factor: float = field(1.0, "by which the context grew")
    original_length: int = field(0, "the context before that (llama3, yarn)", unit="tokens")
    low_frequency_factor: float = field(1.0, "llama3: turns in original_length below which a pair is slowed "
        "by factor")
    high_frequency_factor: float = field(4.0, "llama3: turns above which a pair is left alone")
    beta_fast: float = field(32.0, "yarn: turns above which a pair is left alone")
    beta_slow: float = field(1.0, "yarn: turns below which a pair is slowed by factor")
    attention_factor: float = field(0.0, "yarn: queries and keys are multiplied by it", at_least=0,
        special={0: "1 + ln(factor) / 10"})


@dataclass(frozen=True)
class Model(Group):
    """Which network, and how it is computed; with init_from only the last three fields count."""

    vocab_size: int = count(0, "rows of the embedding", symbol="V", at_least=0,
        special={0: "the tokenizer's size, rounded up to a multiple of 64"})
    hidden_size: int = field(128, "width of the residual stream", symbol="D", at_least=1)
    num_layers: int = field(2, "transformer blocks", at_least=1)
    num_heads: int = field(4, "query heads", at_least=1)
    num_kv_heads: int = field(4, "key and value heads; divides num_heads", at_least=1)
    head_dim: int = field(32, "width of one head; even", at_least=1)
    ffn_size: int = field(256, "inner width of the gated feed-forward", at_least=1)
    activation: str = field("silu", "activation of the feed-forward's gate", choices=("silu", "gelu_tanh"))
    norm: str = field("before", "place of RMSNorm", choices={"before": "each sublayer",
        "after": "each sublayer (OLMo 2)", "around": "each sublayer, before and after it (Gemma 3)"})
    zero_centered_norm: bool = field(False, "norms multiply by 1 + their parameter (Gemma 3)")
    norm_epsilon: float = field(1e-6, "added to the mean square in RMSNorm", above=0)
    qk_norm: str = field("head", "RMSNorm of queries and keys", choices={"none": "",
        "head": "of every head (Qwen3)", "all_heads": "of all heads as one vector (OLMo 2)"})
    qkv_bias: bool = field(False, "queries, keys and values have a bias (Qwen 2)")
    query_pre_attn_scalar: float = field(0.0, "attention scores are divided by its square root", at_least=0,
        special={0: "head_dim"})
    sliding_window: int = field(0, "tokens that a local layer sees", unit="tokens", at_least=0,
        special={0: "no local layers"})
    layer_pattern: str = field("G", 'G: global layer, L: local layer; repeated over the layers ("LLLLLG": '
        'Gemma 3)')
    scale_embedding: bool = field(False, "embeddings are multiplied by sqrt(hidden_size) (Gemma 3)")
    tie_embeddings: bool = field(True, "logits are read with the embedding itself")
    logit_softcap: float = field(0.0, "logits are cap * tanh(logits / cap)", at_least=0,
        special={0: "no cap"})
    rope: Rope = Rope()

    compute_dtype: str = field("float32", "activations and matmuls; parameters are float32",
        choices=("float32", "bfloat16"))
    remat: str = field("none", "activations that the backward pass computes again", choices={"none": "",
        "block": "all but the residual stream", "dots": "all but the outputs of weight matmuls"})
    attention: str = field("", "implementation of attention",
        choices=("reference", "xla", "pallas_tpu", "pallas_gpu", "pallas_hopper"),
        special={"": "the best for the backend"})


@dataclass(frozen=True)
class SFT(Group):
    """Prompts with their responses; only the tokens of the responses are learnt (next_token only)."""

    train: str = field("", ".jsonl .ndjson (.gz and .zst of them) .parquet; files, folders or globs, as "
        "data.train", special={"": "none"})
    evaluation: str = field("", "held-out files, same forms",
        special={"": "every `holdout_every`-th row of the files"})
    share: float = fraction(0.0, "share of the rows; the others are documents of data.train, for which 1 leaves "
        "none")
    prompt_column: str = field("", "column with the prompt, a text or a list of messages")
    response_column: str = field("", "column with the response, a text or a list of messages")
    messages_column: str = field("", 'in place of both: column with a list of {"role", "content"} or '
        '{"from", "value"}, or its JSON text; what the assistant says is learnt; roles: system, user, '
        'assistant, tool, or a usual name for one (human, gpt, …)')


@dataclass(frozen=True)
class Problems(Group):
    """Prompts whose answers can be checked: for objectives over answers, and for `accuracy`."""

    train: str = field("", '.jsonl .ndjson (.gz and .zst of them) .parquet, same forms; only for '
        'objective="rlvr" and others over answers')
    evaluation: str = field("", 'held-out files, same forms, any objective; "compass" = held-out walks, with '
        'data.kind="compass"', special={"": "with `train`, every `holdout_every`-th row of it, else none"})
    prompt_column: str = field("problem", "column with the problem")
    answer_column: str = field("answer", "column with its right answer, a text or a number; of a choice a "
        "letter, the number of an option from 0, or its text")
    options_column: str = field("", 'column with a list of choices, shown as lines "A. …"',
        special={"": "none"})
    answer_marker: str = field("", 'the answer is what follows its last occurrence in that column ("####")',
        special={"": "all of it"})
    instruction: str = field("{problem}", "the prompt; {problem} is replaced by the problem")
    think: bool = field(True, "responses begin with the opening thinking tag; else with what the chat "
        "template puts before them; a thought that is never closed has no answer")
    response_length: int = count(256, "longest sampled response, the token that ends it included", symbol="L",
        unit="tokens")
    verifier: str = field("math", '"math" (math-verify), "choice" (a letter of the row\'s options), "exact", '
        'or "<module>:<name>" of your own (docs/extending.md); rows whose own answer it would judge wrong are '
        'left out')
    time_limit: float = field(5.0, "for checking a response; one that takes longer has no answer",
        unit="seconds", above=0)
    memory_limit: float = field(2.0, "memory that a check may take beyond what its process needs to start; "
        "one that needs more gives no answer; Linux enforces it", unit="GiB", at_least=0,
        special={0: "no limit"})
    step_time_limit: float = field(600.0, "for checking all responses of a step, or of a held-out batch; "
        "those not checked by then have no answer, and the log says how many", unit="seconds", at_least=0,
        special={0: "no limit"})
    workers: int = field(0, "processes that check responses", at_least=0,
        special={0: "one a core, at most 16"})
    planning: str = field("default", 'objective="hicra": phrases that plan, "default" or a text file with '
        'one a line')


@dataclass(frozen=True)
class Lookahead(Group):
    """Copies of a document's own future between thinking tags (next_token only)."""

    share: float = fraction(0.0, "probability that a training document gets one; Trelawney: 0.5")
    length: int = field(16, "longest copied stretch", unit="tokens", at_least=1)
    distance: int = field(32, "farthest start of the stretch from the lookahead", unit="tokens", at_least=0)


@dataclass(frozen=True)
class Compass(Group):
    """Generated documents of the demo (data.kind="compass")."""

    thought_share: float = fraction(0.0, "share of documents that hold a thought")
    musing_share: float = fraction(0.0, "share of those thoughts that say nothing")
    late_musing_share: float = fraction(0.0, "the same, from record `late_from` on")
    late_from: int = field(0, "record from which late_musing_share holds", unit="documents", at_least=0)
    anywhere_share: float = fraction(0.0, "share of thoughts at any place of a document, not before its answer")


@dataclass(frozen=True)
class Data(Group):
    """Where documents, pairs and problems come from, and how they become rows of tokens."""

    kind: str = field("text", 'where documents come from: "text" (files), "compass" (generated documents of '
        'the demo), or "<module>:<name>" of your own')
    train: str = field("", ".txt .jsonl .ndjson (.gz and .zst of them) .parquet: files, folders (through "
        "links) or globs, comma-separated; URLs (gs://) too; what is passed over is logged")
    evaluation: str = field("", "held-out files, same forms",
        special={"": "every `holdout_every`-th training document"})
    holdout_every: int = field(20, "one in so many is held out when `evaluation` is empty", unit="documents",
        at_least=1)
    text_column: str = field("text", "column of a jsonl or parquet file with the document")
    max_unusable_share: float = fraction(0.2, "share of the rows of files that may be left out because they "
        "cannot be used (a missing or null text, no response, an answer that no check accepts); the log "
        "names the first three; with more, the run is refused")
    max_row_bytes: int = field(2**30, "largest row of a file, or document of a .txt file; a longer one is "
        "refused", unit="bytes", at_least=1)
    max_decompression_ratio: float = field(250.0, "bytes of content per byte of a .gz, .zst or .parquet "
        "file; a file with more, and over 64 MiB of it, is refused", above=0)
    txt_separator: str = field("", "splits a .txt file into documents; line ends of .txt files, and here, "
        "are LF, CRLF or CR alike", special={"": "one file, one document"})
    tokenizer: str = field("", '"bytes" or the path of a Hugging Face tokenizer folder',
        special={"": "the tokenizer of init_from, else bytes"})
    bos: str = field("", 'token before every text (documents, each of their windows, prompts); "none" = no '
        'token', special={"": "what the model's own tokenizer puts there"})
    eos: str = field("", "token that ends a text", special={"": "the tokenizer's eos_token"})
    separator: str = field("", "token after every document", special={"": "eos"})
    sequence_length: int = count(128, "length of a row; a longer document is cut into windows, a longer pair "
        "left out", symbol="T", unit="tokens")
    pack: bool = field(True, "several documents or pairs a row (next_token only; an RLP row is one document)")
    fork_marker: str = field("", 'positions="given", in training or held out: the fork is after the last '
        'occurrence of this text; its line ends are LF, CRLF or CR alike')
    chat_template: str = field("", 'of data.sft and data.problems: a Jinja file, or "none" = response right '
        'after prompt; the run keeps it, and an export has it',
        special={"": "the tokenizer's own template if it has one"})
    sft: SFT = SFT()
    problems: Problems = Problems()
    lookahead: Lookahead = Lookahead()
    compass: Compass = Compass()


@dataclass(frozen=True)
class Optimizer(Group):
    """AdamW and its learning rate."""

    learning_rate: float = field(3e-4, "at the peak of its schedule", at_least=0, held_as="float32")
    schedule: str = field("constant", "learning rate after the warm-up", choices=("constant", "cosine"))
    warmup_steps: int = field(0, "linear warm-up, from learning_rate / warmup_steps", unit="updates",
        at_least=0)
    final_share: float = fraction(0.05, "share of the peak that is left at the end of the cosine")
    beta1: float = field(0.9, "decay of the first moment", at_least=0, below=1, held_as="float32",
        why="with 1 the mean of the gradients never moves, and its correction divides by 0")
    beta2: float = field(0.95, "decay of the second moment", at_least=0, below=1, held_as="float32",
        why="with 1 the mean of the gradients never moves, and its correction divides by 0")
    epsilon: float = field(1e-8, "added to the square root of the second moment", above=0, held_as="float32",
        why="a parameter without a gradient would be divided by 0")
    weight_decay: float = field(0.0, "decoupled, on matrices only", at_least=0, held_as="float32")
    clip_norm: float = field(1.0, "largest global norm of the gradient", at_least=0, held_as="float32",
        special={0: "no clipping"})


@dataclass(frozen=True)
class MethodFields(Group):
    """The method's fields whose values its stages use as they are: all of `RLP` but the prompt."""

    group_size: int = count(16, "thoughts per fork", symbol="G")
    forks_per_document: int = count(1, "positions t per document", symbol="K")
    thought_length: int = count(64, "longest sampled thought, its closing tag included", symbol="L",
        unit="tokens")
    horizon: int = count(1, "document tokens scored after the thought; the paper scores 1", symbol="H",
        unit="tokens")
    horizon_weighting: str = field("sum", "of the H log-likelihoods", choices=("sum", "mean", "discount"))
    discount: float = fraction(0.9, 'per token, for horizon_weighting="discount"')
    temperature: float = field(0.7, "of the behaviour policy pi_theta_old, and of held-out thoughts; rewards "
        "are at temperature 1", above=0)
    positions: str = field("uniform", "where thoughts branch off (forks)", choices={"uniform": "",
        "stride": "", "loss": "highest first", "entropy": "highest first", "easy_to_hard": "",
        "given": "by the data"})
    hardest_at: int = count(1000, 'positions="easy_to_hard": step at which forks have the document\'s '
        'highest no-think loss; at the first step they have its lowest', unit="steps")
    min_prefix: int = count(1, "tokens of the document before the earliest fork", unit="tokens")
    baseline: str = field("ema", "the network of S_ema", symbol="phi", choices={"ema": "",
        "frozen": "at the start", "none": "no baseline pass"})
    ema_decay: float = fraction(0.999, "phi <- tau phi + (1 - tau) theta", symbol="tau")
    clip_low: float = field(0.2, "the ratio is clipped from below at 1 - epsilon_l", symbol="epsilon_l",
        at_least=0)
    clip_high: float = field(0.2, "the ratio is clipped from above at 1 + epsilon_h", symbol="epsilon_h",
        at_least=0)
    clip_dual: float = field(0.0, "dual clip: where the advantage A is negative, the objective is held at c "
        "A or more", symbol="c", above=1, special={0: "no bound"})
    ratio: str = field("token", "what is clipped", choices={"token": "the ratio of every token",
        "sequence": "the geometric mean of a thought's ratios (GSPO, whose epsilons are 3e-4 and 4e-4)"})
    updates_per_rollout: int = field(1, "passes over a rollout, each an optimizer update with every "
        "minibatch; above 1 makes the clip live", at_least=1)
    minibatches: int = field(1, "parts of a batch's documents, each with an update of its own: every so "
        "many-th document, as they come shuffled; above 1 makes the clip live", at_least=1)
    unclosed: str = field("mask", "thoughts that reach L without closing", choices={"append": "a closing tag",
        "mask": "out of group and loss", "penalty": "see unclosed_penalty"})
    unclosed_penalty: float = field(1.0, 'taken from the reward, for unclosed="penalty"', unit="nats",
        at_least=0)
    advantages: str = field("", "of a group's thoughts", choices={"leave_one_out": "eq. 4",
        "standardized": "GRPO", "jensen": "JEPO"}, special={"": "the objective's own"})
    length_normalization: str = field("thought", "what the loss of a thought is divided by",
        choices={"thought": "|c|", "limit": "L", "none": "1"})
    kl_weight: float = field(0.0, "times the KL term (nats per action) towards the network of the start, "
        "added to the loss; above 0 it costs a copy of the parameters and a forward pass", symbol="beta",
        at_least=0)
    target_weight: float = field(0.0, "times the target's loss after its thoughts (nats, weighted as the "
        "evidence is), added to the loss", symbol="lambda", at_least=0)
    next_token_weight: float = field(0.0, "times the documents' next-token loss (nats per token), added to "
        "the loss; costs its logits alone", symbol="lambda", at_least=0)
    planning_weight: float = field(0.2, 'objective="hicra": planning tokens have the advantage A + alpha |A|',
        symbol="alpha", at_least=0)
    max_branches_in_flight: int = field(0, "thoughts sampled at once, over all devices; bounds the caches",
        at_least=0, special={0: "all of a step"})
    update_micro_batch: int = field(0, "thoughts in one backward pass, over all devices; bounds the "
        "activations", at_least=0, special={0: "all of a step"})
    rollout_layout: str = field("gathered", "parameters that a rollout reads",
        choices={"gathered": "a copy in compute_dtype, gathered over fsdp once a step",
        "training": "as training has them"})
    baseline_memory: str = field("device", "where phi, and the reference of a KL term, are kept between "
        "their uses in a step", choices=("device", "host"))


@dataclass(frozen=True)
class RLP(MethodFields):
    """The method; its stages get the prompt as token ids (`rlp.engine.step.RLPSettings`)."""

    prompt: str = field("default", 'between the row\'s bos and its text when thinking: "default", "none" or '
        'a text file')


@dataclass(frozen=True)
class Evaluation(Group):
    """What is measured on held-out data, and when."""

    every: int = field(0, "between held-out evaluations during training", unit="steps", at_least=0,
        special={0: "at the end only"})
    documents: int = field(64, "held-out documents, and as many held-out pairs of data.sft", unit="documents",
        at_least=1)
    positions: str = field("", "of held-out thoughts", choices=("uniform", "given"),
        special={"": '"given" if rlp.positions is, else "uniform"'})
    forks_per_document: int = count(1, "positions per held-out document")
    thoughts: int = count(4, "sampled thoughts per position")
    problems: int = field(64, "held-out problems of each file of data.problems", at_least=1)
    responses: int = count(4, "sampled responses per problem, at rlp.temperature; and a greedy one")
    browse_documents: int = field(2, "documents in the report's thought browser", unit="documents",
        at_least=1)
    browse_positions: int = field(32, "most positions per document in the thought browser", at_least=1)
    best_metric: str = field("", "held-out figure that picks the best checkpoint", special={"": "think_loss "
        "(rlp), accuracy (rlvr and others over answers), response_loss (data.sft.share=1) or document_loss"})


@dataclass(frozen=True)
class Checkpoint(Group):
    """When checkpoints are written, and how many are kept."""

    every: int = field(200, "between checkpoints; the last step and evaluated ones are saved too",
        unit="steps", at_least=1)
    keep: int = field(2, "latest checkpoints kept, besides the best", at_least=1)


@dataclass(frozen=True)
class Mesh(Group):
    """How the devices are arranged."""

    data: int = field(-1, "devices along the batch", at_least=1, special={-1: "all that are left"})
    fsdp: int = field(1, "devices along the batch that also split the parameters", at_least=1,
        special={-1: "all that are left"})
    tensor: int = field(1, "devices that split heads and feed-forward", at_least=1,
        special={-1: "all that are left"})


@dataclass(frozen=True)
class Profile(Group):
    """Which steps are traced; a trace changes no result (docs/debugging.md)."""

    steps: str = field("", '"FIRST:END": steps FIRST to END - 1 are traced with jax.profiler into <workdir>/profile '
        '("10:13": steps 10, 11 and 12)', special={"": "no trace"})


@dataclass(frozen=True)
class Config(Run):
    """All fields of a run, for code that reads them: `Config.of(config).rlp.group_size`."""

    objective_options: Mapping[str, Any] = options()  # of the objective, which declares them itself
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
        """The typed settings of a run's ConfigDict, whose other fields (`arms`) are left out."""
        return read(cls, config)


def get_config() -> ConfigDict:
    """The default run: the paper's algorithm, on a model small enough for a laptop."""
    return config_dict(Config)
