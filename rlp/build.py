"""From a config to the things a run is made of, each checked before any long work starts.

This and `rlp.loop` are where a ConfigDict is read; everything they build takes plain arguments.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from models.attention import chosen
from models.config import ModelConfig
from models.sharding import batch_shards, check_heads, make_mesh, parameter_shardings
from models.transformer import shapes
from rlp import hosts
from rlp.branches import Vocabulary, vocabulary
from rlp.budget import UNITS, Budget, End, Steps, ends_known, split, used_by
from rlp.data import compass
from rlp.data.batch import Batch, HeldOut, Stream
from rlp.data.conversations import Format
from rlp.data.lookahead import LookaheadStream
from rlp.data.mix import MixedStream
from rlp.data.pairs import pair_streams
from rlp.data.text import TextStream, text_streams
from rlp.errors import UserError
from rlp.evaluation import Evaluator
from rlp.flops import by_part, next_token_flops
from rlp.judging import TokenBytes, token_table
from rlp.objective.registry import find
from rlp.optimizer import Optimizer, make_optimizer
from rlp.placement import check_memory
from rlp.run_check import check
from rlp.run_config import fields
from rlp.start import network
from rlp.step import RLPSettings
from rlp.tokenizer import Tokenizer
from rlp.tokenizer import load as load_tokenizer
from rlp.waves import wave_shape

LOGGER = logging.getLogger(__name__)

AnyTokenizer = Tokenizer | compass.CompassTokenizer

# Ours, in the spirit of the paper's: think briefly about what comes next, then go on in style.
DEFAULT_PROMPT = (
    "You are given the beginning of a text. Think briefly, inside the thinking tags, about what "
    "comes next: recall, infer or calculate what the next words depend on. Then continue the text "
    "in the same style, as if nothing had come between.\n\n"
)


@dataclasses.dataclass(frozen=True)
class Method:
    """What it takes to compute something with a network, on any machine."""

    tokenizer: AnyTokenizer
    model: ModelConfig
    settings: RLPSettings
    vocabulary: Vocabulary

    @property
    def separator(self) -> str:
        """What stands between the pieces of a text when it is shown."""
        return getattr(self.tokenizer, "between_pieces", "")


@dataclasses.dataclass(frozen=True)
class Run(Method):
    """The things a run is made of, all but its documents: those take time to read."""

    evaluator: Evaluator
    mesh: Mesh


def build_method(config: ConfigDict, files: Path | None = None) -> Method:
    """What a run computes with, without its mesh and its data.

    Args:
      config: of the run.
      files: folder of the tokenizer where the config names none; None for bytes.

    Raises:
      UserError: for a value that cannot be used, naming its field.
    """
    tokenizer = _tokenizer(config, files)
    model = _named(lambda: _model(config, tokenizer.vocab_size))
    _check_room(config, len(tokenizer.think_close))
    words = _named(lambda: _vocabulary(tokenizer, model.vocab_size))
    return Method(tokenizer, model, _settings(config, _prompt(config, tokenizer)), words)


def build(
    config: ConfigDict, files: Path | None = None, devices: Sequence[Any] | None = None
) -> Run:
    """Builds a run over some devices, None for all that JAX has; arguments and errors as of
    `build_method`."""
    check(dict(fields(config)))
    made = build_method(config, files)
    mesh = _named(lambda: _mesh(config, devices))
    _named(lambda: parameter_shardings(mesh, shapes(made.model)))
    _named(lambda: check_heads(mesh, made.model.num_kv_heads))
    _named(lambda: chosen(made.model.attention, made.model.head_dim, made.model.dtype))
    if thinks(config):
        _named(lambda: check_memory(mesh, config.rlp.baseline_memory))
        _named(lambda: _check_waves(config, batch_shards(mesh)))
    evaluator = Evaluator(
        model=made.model,
        settings=made.settings,
        vocabulary=made.vocabulary,
        forks=config.evaluation.forks_per_document,
        thoughts=config.evaluation.thoughts,
        batch_size=_evaluated_at_once(config, batch_shards(mesh)),
        mesh=mesh,
        table=_table(made),
    )
    return Run(made.tokenizer, made.model, made.settings, made.vocabulary, evaluator, mesh)


def thinks(config: ConfigDict) -> bool:
    """Whether a run samples thoughts: any objective does but plain next-token prediction."""
    return config.objective != "next_token"


def _table(made: Method) -> TokenBytes | None:
    """Bytes of all tokens, where the objective compares them."""
    if not find(made.settings.objective).reads_matches:
        return None
    return token_table(made.tokenizer.token_bytes(), made.model.vocab_size)


def build_end(config: ConfigDict, model: ModelConfig) -> End:
    """Where a run ends.

    Raises:
      UserError: `match` names a run that is not finished, or does not say what it used.
    """
    if not config.match:
        return Steps(config.steps)
    used, unit = hosts.agree(lambda: used_by(config.match)), split(config.match)[1]
    if not ends_known(config.objective, unit):
        return Budget(UNITS[unit], used)
    update = build_optimizer(config, None).flops(shapes(model))
    step = next_token_flops(model, update, config.batch_size, config.data.sequence_length)
    return Steps(max(1, round(used / sum(by_part(step).values()))))


def build_optimizer(config: ConfigDict, steps: int | None) -> Optimizer:
    """The optimizer of a run of `steps` steps; None where the learning rate does not ask."""
    updates = (steps or 1) * updates_per_step(config)
    return make_optimizer(total_steps=updates, **config.optimizer)


def updates_per_step(config: ConfigDict) -> int:
    """Optimizer updates of a step."""
    return config.rlp.updates_per_rollout * config.rlp.minibatches if thinks(config) else 1


def best_metric(config: ConfigDict) -> str:
    """The held-out figure that picks the best checkpoint."""
    default = "think_loss" if thinks(config) else "document_loss"
    if config.data.sft.share == 1:
        default = "response_loss"
    return config.evaluation.best_metric or default


def lower_is_better(metric: str) -> bool:
    """Whether a held-out figure is a loss."""
    return metric.endswith("_loss")


def _named(make: Callable[[], Any]) -> Any:
    """A ValueError of the models' own checks, which name the field, as the user's."""
    try:
        return make()
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error


def _tokenizer(config: ConfigDict, files: Path | None) -> AnyTokenizer:
    if config.data.kind == "compass":
        return compass.CompassTokenizer()
    data = config.data
    folder = data.tokenizer or (str(files) if files else "bytes")
    return load_tokenizer(folder, data.bos, data.eos, data.separator, config.model.vocab_size)


def _vocabulary(tokenizer: AnyTokenizer, size: int) -> Vocabulary:
    return vocabulary(
        think_open=tokenizer.think_open,
        think_close=tokenizer.think_close,
        pad=tokenizer.pad,
        bos=tokenizer.bos,
        eos=tokenizer.eos,
        separator=tokenizer.separator,
        used=tokenizer.vocab_size,
        size=size,
    )


def _check_room(config: ConfigDict, tag: int) -> None:
    """Refuses thoughts that cannot close where those that do not are masked."""
    if config.rlp.thought_length <= tag and config.rlp.unclosed == "mask":
        raise UserError(
            f"rlp.thought_length={config.rlp.thought_length} leaves no room for a closing tag of "
            f"{tag} token{'s' * (tag > 1)} after a word, so rlp.unclosed='mask' would mask every "
            f"thought; set thought_length to {tag + 1} or more, or unclosed to 'append'"
        )


def _model(config: ConfigDict, used: int) -> ModelConfig:
    size = config.model.vocab_size or -(-used // 64) * 64
    if size < used:
        raise UserError(f"model.vocab_size={size} is smaller than the tokenizer's {used} ids")
    return network(dict(config.model) | {"vocab_size": size})


def _mesh(config: ConfigDict, devices: Sequence[Any] | None) -> Mesh:
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, devices)
    split = batch_shards(mesh)
    if config.batch_size % split:
        raise UserError(
            f"batch_size={config.batch_size} is no multiple of the {split} devices that share it "
            f"(mesh.data={mesh.shape['data']}, mesh.fsdp={mesh.shape['fsdp']})"
        )
    return mesh


def _check_waves(config: ConfigDict, shards: int) -> None:
    rlp, documents = config.rlp, config.batch_size
    branches = rlp.forks_per_document * rlp.group_size
    if documents % (rlp.minibatches * shards):
        raise UserError(
            f"batch_size={documents} is no multiple of {rlp.minibatches * shards}, rlp.minibatches="
            f"{rlp.minibatches} times the {shards} device(s) that share each; change one of them"
        )
    wanted = {
        "max_branches_in_flight": (documents, rlp.group_size),
        "update_micro_batch": (documents // rlp.minibatches, 1),
    }
    for field, (rows, unit) in wanted.items():
        wave_shape(rows, branches, unit, rlp[field], shards, f"rlp.{field}")


def _evaluated_at_once(config: ConfigDict, shards: int) -> int:
    """Held-out documents whose thoughts are sampled together: as many on each device."""
    if not config.rlp.max_branches_in_flight:
        return config.batch_size
    branches = config.evaluation.forks_per_document * config.evaluation.thoughts
    each = config.rlp.max_branches_in_flight // (branches * shards)
    return min(config.batch_size, max(1, each) * shards)


def _prompt(config: ConfigDict, tokenizer: AnyTokenizer) -> tuple[int, ...]:
    """Token ids of the thinking prompt."""
    if config.rlp.prompt == "none":
        return ()
    text = DEFAULT_PROMPT
    if config.rlp.prompt != "default":
        text = _file_text("rlp.prompt", config.rlp.prompt, "'default' or 'none'")
    start = () if tokenizer.bos is None else (tokenizer.bos,)
    return (*start, *tokenizer.encode(text))


def _file_text(field: str, name: str, others: str) -> str:
    """The text of the file that a field names, where it is none of its other values."""
    path = Path(name)
    if not path.is_file():
        raise UserError(f"{field}={name!r} is no file; give one, or {others}")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{field}={name!r} cannot be read: {error}") from error


def _settings(config: ConfigDict, prompt: tuple[int, ...]) -> RLPSettings:
    objective = config.objective if thinks(config) else "rlp"  # of the held-out figures
    return RLPSettings(**(dict(config.rlp) | {"prompt": prompt, "objective": objective}))


def read_documents(config: ConfigDict, tokenizer: AnyTokenizer) -> tuple[Stream, HeldOut]:
    """The training stream, and the held-out rows of one document, or one pair, each.

    Raises:
      UserError: for files that cannot be used.
    """
    data, wanted = config.data, config.evaluation.documents
    if data.kind == "compass":
        walks = compass.CompassStream(config.seed, data.sequence_length, **data.compass)
        unseen = compass.CompassStream(0, compass.DOCUMENT_LENGTH, held_out=True)
        return _with_lookaheads(config, tokenizer, walks), HeldOut(unseen.batch(0, wanted))
    share = data.sft.share
    first = lambda rows: rows.batch(0, min(wanted, len(rows)))
    if share < 1:
        plain, unseen_documents = _documents(config, tokenizer)
        documents = _with_lookaheads(config, tokenizer, plain)
        if share == 0:
            return documents, HeldOut(first(unseen_documents))
    pairs, unseen_pairs = _pairs(config, tokenizer)
    if share == 1:
        return pairs, HeldOut(None, first(unseen_pairs))
    held_out = HeldOut(first(unseen_documents), first(unseen_pairs))
    return MixedStream(documents, pairs, share), held_out


def _documents(config: ConfigDict, tokenizer: AnyTokenizer) -> tuple[TextStream, TextStream]:
    """Rows of documents from files, for training and held out."""
    data, rlp = config.data, config.rlp
    room = rlp.min_prefix + rlp.horizon - 1  # tokens besides one for every fork
    streams = {
        "train": data.train,
        "evaluation": data.evaluation,
        "holdout_every": data.holdout_every,
        "text_column": data.text_column,
        "txt_separator": data.txt_separator,
        "tokenizer": tokenizer,
        "sequence_length": data.sequence_length,
        "pack": data.pack and not thinks(config),
        "train_forks": thinks(config),
        "min_tokens": room + rlp.forks_per_document if thinks(config) else 2,
        "held_out_min_tokens": room + config.evaluation.forks_per_document,
        "fork_marker": data.fork_marker if rlp.positions == "given" else "",
        "min_prefix": rlp.min_prefix,
        "horizon": rlp.horizon,
        "seed": config.seed,
    }
    made = text_streams(**streams)
    _tell(made, "%s: %d rows; %d windows left out: too short, with tags, or without their fork")
    return made


def _with_lookaheads(config: ConfigDict, tokenizer: AnyTokenizer, documents: Stream) -> Stream:
    """Training rows with lookaheads in their share of the documents."""
    data = config.data
    if data.lookahead.share == 0:
        return documents
    ends = {tokenizer.pad, tokenizer.eos, tokenizer.separator}
    return LookaheadStream(
        documents,
        seed=config.seed,
        share=data.lookahead.share,
        length=data.lookahead.length,
        distance=data.lookahead.distance,
        think_open=tokenizer.think_open,
        think_close=tokenizer.think_close,
        pad=tokenizer.pad,
        ends=ends if tokenizer.bos is None else ends | {tokenizer.bos},
    )


def _pairs(config: ConfigDict, tokenizer: AnyTokenizer) -> tuple[TextStream, TextStream]:
    """Rows of prompts with their responses from files, for training and held out."""
    data = config.data
    template = None
    if data.sft.chat_template == "":
        template = tokenizer.chat_template
    elif data.sft.chat_template != "none":
        template = _file_text("data.sft.chat_template", data.sft.chat_template, "'' or 'none'")
    LOGGER.info("responses follow prompts %s", "plainly" if template is None else "by a template")
    pairs = {
        "train": data.sft.train,
        "evaluation": data.sft.evaluation,
        "holdout_every": data.holdout_every,
        "form": Format(
            prompt=data.sft.prompt_column,
            response=data.sft.response_column,
            messages=data.sft.messages_column,
        ),
        "template": template,
        "tokenizer": tokenizer,
        "sequence_length": data.sequence_length,
        "pack": data.pack,
        "seed": config.seed,
    }
    made = pair_streams(**pairs)
    _tell(made, "%s: %d rows of pairs; %d pairs left out: longer than data.sequence_length")
    return made


def _tell(streams: tuple[TextStream, TextStream], line: str) -> None:
    """Logs how many rows streams have, and how many stretches they left out."""
    for name, stream in zip(("training", "held-out"), streams, strict=True):
        LOGGER.info(line, name, len(stream), stream.skipped)


def root_keys(seed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Keys of the parameters, of training and of evaluation."""
    parameters, training, evaluation = jax.random.split(jax.random.key(seed), 3)
    return parameters, training, evaluation


def browse_rows(documents: Batch, count: int) -> Batch:
    """The first few held-out documents."""
    return jax.tree.map(lambda x: np.asarray(x)[:count], documents)
