"""Every field of a run, with its unit and, where it has one, its symbol in the RLP paper (arXiv 2510.01265).

The configs beside this file start from `get_config()` and change what they need. A field that is not
here does not exist: `launch.train` refuses it and names the nearest one that does.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The default run: the paper's algorithm, on a model small enough for a laptop."""
    config = ConfigDict()
    config.seed = 0  # root of all randomness: parameters, data order, forks, thoughts
    config.objective = "next_token"  # what is optimised: "next_token", "rlp", another one of docs/objectives.md, or "<module>:<name>" of your own
    config.init_from = ""  # what to start from, network and tokenizer included: "<workdir>", "<workdir>@<step>", "<workdir>@best", a Hugging Face folder or hub name, a GGUF file; an arm may name an arm
    config.steps = 1000  # training steps, unless `match` says where to end; one RLP step is one rollout and its updates; 0 = evaluate what init_from names
    config.batch_size = 16  # B: documents a step (rlp) or rows a step (next_token)
    config.match = ""  # "<workdir>:flops", ":tokens" (of documents) or ":seconds" (times devices): end, whatever `steps`, at the step nearest to what that finished run used; an arm may name an arm; but for next_token with flops it needs optimizer.schedule="constant"
    config.max_bad_steps = 5  # consecutive non-finite losses or gradients before the run stops

    config.model = ConfigDict()  # which network, and how it is computed; with init_from the last three fields alone count
    config.model.vocab_size = 0  # V: rows of the embedding; 0 = the tokenizer's size, up to a multiple of 64
    config.model.hidden_size = 128  # D: width of the residual stream
    config.model.num_layers = 2  # transformer blocks
    config.model.num_heads = 4  # query heads
    config.model.num_kv_heads = 4  # key and value heads; divides num_heads
    config.model.head_dim = 32  # width of one head
    config.model.ffn_size = 256  # inner width of the gated feed-forward
    config.model.activation = "silu"  # of its gate: "silu" or "gelu_tanh"
    config.model.norm = "before"  # RMSNorm "before" each sublayer, "after" it (OLMo 2), or "around" it: both (Gemma 3)
    config.model.zero_centered_norm = False  # norms multiply by 1 + their parameter (Gemma 3)
    config.model.norm_epsilon = 1e-6  # added to the mean square in RMSNorm
    config.model.qk_norm = "head"  # RMSNorm of queries and keys: "none", of every "head" (Qwen3), or of "all_heads" as one vector (OLMo 2)
    config.model.qkv_bias = False  # queries, keys and values have a bias (Qwen 2)
    config.model.query_pre_attn_scalar = 0.0  # attention scores are divided by its square root; 0 = head_dim
    config.model.sliding_window = 0  # tokens that a local layer sees; 0 = there is none
    config.model.layer_pattern = "G"  # G: global layer, L: local layer; repeated over the layers ("LLLLLG": Gemma 3)
    config.model.scale_embedding = False  # embeddings times sqrt(hidden_size) (Gemma 3)
    config.model.tie_embeddings = True  # read logits with the embedding itself
    config.model.logit_softcap = 0.0  # logits are cap * tanh(logits / cap); 0 = as they are
    config.model.rope = ConfigDict()
    config.model.rope.theta = 1e4  # base of the rotary frequencies
    config.model.rope.local_theta = 0.0  # base in local layers, never scaled there; 0 = the same as everywhere
    config.model.rope.scaling = "none"  # "none", "linear", "llama3" or "yarn"
    config.model.rope.factor = 1.0  # by which the context grew
    config.model.rope.original_length = 0  # tokens of the context before that (llama3, yarn)
    config.model.rope.low_frequency_factor = 1.0  # llama3: turns in original_length below which a pair is slowed by factor
    config.model.rope.high_frequency_factor = 4.0  # llama3: turns above which it is left alone
    config.model.rope.beta_fast = 32.0  # yarn: turns above which a pair is left alone
    config.model.rope.beta_slow = 1.0  # yarn: turns below which it is slowed by factor
    config.model.rope.attention_factor = 0.0  # yarn: times queries and keys; 0 = 1 + ln(factor) / 10

    config.model.compute_dtype = "float32"  # activations and matmuls: "float32" or "bfloat16"; parameters are float32
    config.model.remat = "none"  # activations recomputed in the backward pass: "none", "block" or "dots"
    config.model.attention = ""  # pallas_tpu, pallas_gpu, pallas_hopper, xla or reference; "" = best for the backend

    config.data = ConfigDict()
    config.data.kind = "text"  # "text" (files) or "compass" (the documents of the demo, generated)
    config.data.train = ""  # .txt .jsonl .ndjson (.gz and .zst of them) .parquet: files, folders (through links) or globs, comma-separated; URLs (gs://) too; what is passed over is logged
    config.data.evaluation = ""  # held-out files, same forms; "" = every `holdout_every`-th training document
    config.data.holdout_every = 20  # documents; one in so many is held out when `evaluation` is empty
    config.data.text_column = "text"  # field of a jsonl or parquet row that holds the document
    config.data.max_unusable_share = 0.2  # rows of files that may be left out because they cannot be used (a missing or null text, no response, an answer that no check accepts); the log names the first three; with more, the run is refused
    config.data.max_row_bytes = 2**30  # of a row of a file, or of a document of a .txt file; a longer one is refused
    config.data.max_decompression_ratio = 250.0  # bytes of content per byte of a .gz, .zst or .parquet file; one with more, and over 64 MiB of it, is refused
    config.data.txt_separator = ""  # splits a .txt file into documents; "" = one file, one document; line ends of .txt files, and here, are LF, CRLF or CR alike
    config.data.tokenizer = ""  # "bytes" or the path of a Hugging Face tokenizer folder; "" = that of init_from, else bytes
    config.data.bos = ""  # token before every text: documents, each of their windows, prompts; "" = what the model's own tokenizer puts there, "none" = nothing
    config.data.eos = ""  # token that ends a text; "" = the tokenizer's eos_token
    config.data.separator = ""  # token after every document; "" = eos
    config.data.sequence_length = 128  # T: tokens of a row; a longer document is cut into windows, a longer pair left out
    config.data.pack = True  # several documents or pairs a row (next_token only; an RLP row is one document)
    config.data.fork_marker = ""  # positions="given", in training or held out: the fork stands after the last occurrence of this text; its line ends are LF, CRLF or CR alike

    config.data.chat_template = ""  # of data.sft and data.problems: a Jinja file, "none" = response right after prompt, or "" = the tokenizer's own template if it has one; the run keeps it, and an export has it

    config.data.sft = ConfigDict()  # prompts with their responses, whose tokens alone are learnt (next_token only)
    config.data.sft.train = ""  # .jsonl .ndjson (.gz and .zst of them) .parquet, same forms; "" = none
    config.data.sft.evaluation = ""  # held-out files, same forms; "" = every `holdout_every`-th row of the files
    config.data.sft.share = 0.0  # of the rows; the others are documents of data.train, which 1 leaves none
    config.data.sft.prompt_column = ""  # field of a row that holds the prompt, a text or a list of messages …
    config.data.sft.response_column = ""  # … and the one with the response, the same; or:
    config.data.sft.messages_column = ""  # field with a list of {"role", "content"} or {"from", "value"}, or its JSON text; what the assistant says is learnt; roles: system, user, assistant, tool, or a usual name for one (human, gpt, …)

    config.data.problems = ConfigDict()  # prompts whose answers can be checked: for objectives over answers, and for `accuracy`
    config.data.problems.train = ""  # .jsonl .ndjson (.gz and .zst of them) .parquet, same forms; objective="rlvr" and its kin alone
    config.data.problems.evaluation = ""  # held-out files, same forms, any objective; "" = with `train`, every `holdout_every`-th row of it, else none; "compass" = held-out walks, with data.kind="compass"
    config.data.problems.prompt_column = "problem"  # field of a row that holds the problem …
    config.data.problems.answer_column = "answer"  # … the one with its right answer, a text or a number; of a choice a letter, the number of an option from 0, or its text …
    config.data.problems.options_column = ""  # … and one with a list of choices, shown as lines "A. …"; "" = none
    config.data.problems.answer_marker = ""  # the answer is what follows its last occurrence in that field ("####"); "" = all of it
    config.data.problems.instruction = "{problem}"  # the prompt; {problem} stands for the problem
    config.data.problems.think = True  # responses begin with the opening thinking tag; else with what the chat template puts before them; a thought that is never closed has no answer
    config.data.problems.response_length = 256  # L: most tokens sampled per response, the one that ends it included
    config.data.problems.verifier = "math"  # "math" (math-verify), "choice" (a letter of the row's options), "exact", or "<module>:<name>" of your own (docs/extending.md); rows whose own answer it would judge wrong are left out
    config.data.problems.time_limit = 5.0  # seconds to check a response; one that takes longer gives no answer
    config.data.problems.memory_limit = 2.0  # GiB that a check may take beyond what its process needs to start; one that needs more gives no answer; 0 = any number; Linux enforces it
    config.data.problems.step_time_limit = 600.0  # seconds to check all responses of a step, or of a batch held out; those not checked by then give no answer, and the log says how many; 0 = any number
    config.data.problems.workers = 0  # processes that check responses; 0 = one a core, at most 16
    config.data.problems.planning = "default"  # objective="hicra": phrases that plan, "default" or a text file with one a line

    config.data.lookahead = ConfigDict()  # copies of a document's own future between thinking tags (next_token only)
    config.data.lookahead.share = 0.0  # probability that a training document gets one; 0 = none; Trelawney: 0.5
    config.data.lookahead.length = 16  # most tokens of the copied stretch
    config.data.lookahead.distance = 32  # most tokens between the lookahead's place and the stretch's start

    config.data.compass = ConfigDict()
    config.data.compass.thought_share = 0.0  # share of documents that hold a thought; 0 = direct documents
    config.data.compass.musing_share = 0.0  # share of those thoughts that say nothing
    config.data.compass.late_musing_share = 0.0  # the same, from record `late_from` on
    config.data.compass.late_from = 0  # documents
    config.data.compass.anywhere_share = 0.0  # share of thoughts at any place of a document, not before its answer

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 3e-4  # peak, AdamW
    config.optimizer.schedule = "constant"  # after the warm-up: "constant" or "cosine"
    config.optimizer.warmup_steps = 0  # updates of linear warm-up, from learning_rate / warmup_steps
    config.optimizer.final_share = 0.05  # of the peak, at the end of the cosine
    config.optimizer.beta1 = 0.9  # AdamW, first moment
    config.optimizer.beta2 = 0.95  # AdamW, second moment
    config.optimizer.epsilon = 1e-8  # AdamW
    config.optimizer.weight_decay = 0.0  # AdamW, on matrices only
    config.optimizer.clip_norm = 1.0  # global gradient norm; 0 = no clipping

    config.rlp = ConfigDict()
    config.rlp.group_size = 16  # G: thoughts per fork
    config.rlp.forks_per_document = 1  # K: positions t per document
    config.rlp.thought_length = 64  # L: most tokens sampled per thought, those of its closing tag included
    config.rlp.horizon = 1  # H: document tokens scored after the thought; the paper scores 1
    config.rlp.horizon_weighting = "sum"  # of the H log-likelihoods: "sum", "mean" or "discount"
    config.rlp.discount = 0.9  # per token, for horizon_weighting="discount"
    config.rlp.temperature = 0.7  # of the behaviour policy pi_theta_old, held-out thoughts too; rewards are at temperature 1
    config.rlp.positions = "uniform"  # forks: "uniform", "stride", "loss", "entropy" (highest first), "easy_to_hard" or "given"
    config.rlp.hardest_at = 1000  # positions="easy_to_hard": step at which forks have the document's highest no-think loss; at the first one, its lowest
    config.rlp.min_prefix = 1  # tokens of the document before the earliest fork
    config.rlp.prompt = "default"  # between the row's bos and its text when thinking: "default", "none" or a text file
    config.rlp.baseline = "ema"  # phi of S_ema: "ema", "frozen" (at the start) or "none" (no baseline pass)
    config.rlp.ema_decay = 0.999  # tau: phi <- tau phi + (1 - tau) theta
    config.rlp.clip_low = 0.2  # epsilon_l: ratio is clipped from below at 1 - epsilon_l
    config.rlp.clip_high = 0.2  # epsilon_h: ratio is clipped from above at 1 + epsilon_h
    config.rlp.clip_dual = 0.0  # c > 1: where the advantage A is negative, the objective is held at c A or more (dual clip); 0 = no bound
    config.rlp.ratio = "token"  # what is clipped: the ratio of every "token", or the geometric mean of a thought's, one for the "sequence" (GSPO, whose epsilons are 3e-4 and 4e-4)
    config.rlp.updates_per_rollout = 1  # passes over a rollout, each an optimizer update with every minibatch; above 1 makes the clip live
    config.rlp.minibatches = 1  # parts of a batch's documents that are an update of their own: every so many-th one, as they come shuffled; above 1 makes the clip live
    config.rlp.unclosed = "mask"  # thoughts that hit L: "append" a tag, "mask" out of group and loss, or "penalty"
    config.rlp.unclosed_penalty = 1.0  # nats taken from the reward, for unclosed="penalty"
    config.rlp.advantages = ""  # of a group's thoughts: "leave_one_out" (eq. 4), "standardized" (GRPO) or "jensen" (JEPO); "" = the objective's own
    config.rlp.length_normalization = "thought"  # loss of a thought is divided by "thought" = |c|, "limit" = L, or "none" = 1
    config.rlp.kl_weight = 0.0  # beta: times the KL term (nats per action) towards the network of the start, added to the loss; above 0 it costs a copy of the parameters and a forward pass

    config.rlp.target_weight = 0.0  # lambda: times the target's loss after its thoughts (nats, weighted as the evidence is), added to the loss
    config.rlp.next_token_weight = 0.0  # lambda: times the documents' next-token loss (nats per token), added to the loss; costs its logits alone
    config.rlp.planning_weight = 0.2  # alpha of objective="hicra": planning tokens have the advantage A + alpha |A|
    config.rlp.max_branches_in_flight = 0  # thoughts sampled at once, over all devices; bounds the caches; 0 = all of a step
    config.rlp.update_micro_batch = 0  # thoughts in one backward pass, over all devices; bounds the activations; 0 = all of a step
    config.rlp.rollout_layout = "gathered"  # parameters that a rollout reads: a copy in compute_dtype, "gathered" over fsdp once a step, or as "training" has them
    config.rlp.baseline_memory = "device"  # where phi, and the reference of a KL term, lie between their uses in a step: "device" or "host"

    config.evaluation = ConfigDict()
    config.evaluation.every = 0  # steps between held-out evaluations during training; 0 = at the end only
    config.evaluation.documents = 64  # held-out documents, and as many held-out pairs of data.sft
    config.evaluation.positions = ""  # of held-out thoughts: "uniform" or "given"; "" = "given" if rlp.positions is, else "uniform"
    config.evaluation.forks_per_document = 1  # positions per held-out document
    config.evaluation.thoughts = 4  # sampled thoughts per position
    config.evaluation.problems = 64  # held-out problems of each file of data.problems
    config.evaluation.responses = 4  # sampled responses per problem, at rlp.temperature; and a greedy one
    config.evaluation.browse_documents = 2  # documents in the report's thought browser
    config.evaluation.browse_positions = 32  # most positions per document in the thought browser
    config.evaluation.best_metric = ""  # held-out figure that picks the best checkpoint; "" = think_loss (rlp), accuracy (rlvr and its kin), response_loss (data.sft.share=1) or document_loss

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 200  # steps between checkpoints; the last step and evaluated ones are saved too
    config.checkpoint.keep = 2  # latest checkpoints kept, besides the best

    config.mesh = ConfigDict()
    config.mesh.data = -1  # devices along the batch; -1 = all that are left
    config.mesh.fsdp = 1  # devices along the batch that also split the parameters
    config.mesh.tensor = 1  # devices that split heads and feed-forward
    return config
