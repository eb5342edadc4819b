"""From a config to the things a run is made of, each checked before any long work starts.

This and `rlp.run.loop` are where a ConfigDict is read; everything they build takes plain arguments.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from models.attention import chosen
from models.config import ModelConfig
from models.sharding import batch_shards, check_heads, make_mesh, parameter_shardings
from models.transformer import shapes
from rlp.answers.verifiers import find as find_verifier
from rlp.data import compass
from rlp.engine.branches import Vocabulary, response_vocabulary, vocabulary
from rlp.engine.microbatching import wave_shape
from rlp.engine.optimizer import Optimizer, make_optimizer
from rlp.engine.placement import check_memory
from rlp.engine.step import RLPSettings
from rlp.engine.token_bytes import TokenBytes, token_table
from rlp.evaluation.answers import AnswerEvaluator
from rlp.evaluation.responses import (
    Answering,
    begins_in_thought,
    make_frame,
    response_settings,
)
from rlp.evaluation.thoughts import Evaluator
from rlp.interop.init_from import network
from rlp.objectives import rewards
from rlp.objectives.registry import find
from rlp.run.assembly_data import (
    answers_problems,
    asks_problems,
    chat_template,
    file_text,
    held_out_positions,
    make_grader,
    phrases,
)
from rlp.run.checks import INT32, check
from rlp.runtime import hosts
from rlp.runtime.config_json import fields
from rlp.runtime.errors import UserError
from rlp.tokenizers.load import load_tokenizer
from rlp.tokenizers.tokenizer import Tokenizer
from rlp.tokenizers.turns import end_of_turn
from rlp.training.budget import UNITS, Budget, End, Steps, ends_known, split, used_by
from rlp.training.flops import by_part, next_token_flops

# Ours, in the spirit of the paper's: think briefly about what comes next, then go on in style.
DEFAULT_PROMPT = (
    "You are given the beginning of a text. Think briefly, inside the thinking tags, about what "
    "comes next: recall, infer or calculate what the next words depend on. Then continue the text "
    "in the same style, as if nothing had come between.\n\n"
)


@dataclasses.dataclass(frozen=True)
class Method:
    """What it takes to compute something with a network, on any machine.

    Attributes:
      tokenizer, model, settings, vocabulary: of the run.
      template: Jinja, makes prompts of messages; None where they are taken as they are.
      ends: ids that end what is trained on, besides those that the run started with.
    """

    tokenizer: Tokenizer
    model: ModelConfig
    settings: RLPSettings
    vocabulary: Vocabulary
    template: str | None
    ends: tuple[int, ...]

    @property
    def separator(self) -> str:
        """What stands between the pieces of a text when it is shown."""
        return self.tokenizer.between_pieces


@dataclasses.dataclass(frozen=True)
class Run(Method):
    """The things a run is made of, all but its documents: those take time to read."""

    evaluator: Evaluator
    mesh: Mesh
    answering: Answering | None

    @property
    def sampled(self) -> tuple[RLPSettings, Vocabulary]:
        """Settings and vocabulary of what training samples: thoughts, or responses to problems."""
        if self.answering and self.answering.trained:
            return self.answering.settings, self.answering.vocabulary
        return self.settings, self.vocabulary


def copies_kept(config: ConfigDict) -> tuple[bool, bool]:
    """Whether the state of a run has a baseline φ, and a reference of its own for the KL term."""
    if not thinks(config):
        return False, False
    phi = "none" if answers_problems(config) else config.rlp.baseline
    return phi != "none", config.rlp.kl_weight > 0 and phi != "frozen"


def build_method(
    config: ConfigDict,
    files: Path | None = None,
    look: Callable[[ModelConfig, int], None] | None = None,
) -> Method:
    """What a run computes with, without its mesh and its data.

    Args:
      config: of the run.
      files: folder of the tokenizer where the config names none; None for bytes.
      look: is called with the network, and how many ids the tokenizer has, before anything is made
        of them; it may refuse them.

    Raises:
      UserError: for a value that cannot be used, naming its field.
    """
    tokenizer = _tokenizer(config, files)
    model = _named(lambda: _model(config, tokenizer.vocab_size))
    if look:
        look(model, tokenizer.vocab_size)
    if answers_problems(config):
        length = config.data.problems.response_length
        _check_room(config, "data.problems.response_length", length, 1, "an end")
    else:
        length, tag = config.rlp.thought_length, len(tokenizer.think_close)
        _check_room(config, "rlp.thought_length", length, tag, "a closing tag")
    words = _named(lambda: _vocabulary(tokenizer, model.vocab_size))
    settings = _settings(config, tokenizer)
    template = chat_template(config, tokenizer, files)
    return Method(tokenizer, model, settings, words, template, _ends(config, tokenizer, template))


def build(
    config: ConfigDict,
    files: Path | None = None,
    devices: Sequence[Any] | None = None,
    look: Callable[[ModelConfig, int, Mesh], None] | None = None,
) -> Run:
    """Builds a run.

    Args:
      config, files: as of `build_method`.
      devices: that it is spread over; None for all that JAX has.
      look: as of `build_method`, called with the mesh, too.

    Raises:
      UserError: as `build_method` does.
    """
    check(dict(fields(config)))
    mesh = _named(lambda: _mesh(config, devices))

    def look_on_mesh(model: ModelConfig, used: int) -> None:
        _named(lambda: parameter_shardings(mesh, shapes(model)))
        if look:
            look(model, used, mesh)

    made = build_method(config, files, look_on_mesh)
    answering = _answering(config, made)
    _named(lambda: check_heads(mesh, made.model.num_kv_heads))
    _named(lambda: chosen(made.model.attention, made.model.head_dim, made.model.dtype))
    if thinks(config):
        _named(lambda: check_memory(mesh, config.rlp.baseline_memory))
        sampled = answering.settings if answering and answering.trained else made.settings
        _named(lambda: _check_waves(config, sampled, batch_shards(mesh)))
    at_once = _evaluated_at_once(config, batch_shards(mesh))
    answers = None
    if answering is not None:
        responses = config.evaluation.responses
        answers = AnswerEvaluator(made.model, answering, responses, at_once, mesh)
    evaluator = Evaluator(
        model=made.model,
        settings=made.settings,
        vocabulary=made.vocabulary,
        positions=held_out_positions(config),
        forks=config.evaluation.forks_per_document,
        thoughts=config.evaluation.thoughts,
        batch_size=at_once,
        mesh=mesh,
        table=_table(made),
        answers=answers,
    )
    method = {field.name: getattr(made, field.name) for field in dataclasses.fields(Method)}
    return Run(**method, evaluator=evaluator, mesh=mesh, answering=answering)


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
    if answers_problems(config):
        default = "accuracy"
    if config.data.sft.share == 1:
        default = "response_loss"
    return config.evaluation.best_metric or default


def _named(make: Callable[[], Any]) -> Any:
    """A ValueError of the models' own checks, which name the field, as the user's."""
    try:
        return make()
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error


def _tokenizer(config: ConfigDict, files: Path | None) -> Tokenizer:
    if config.data.kind == "compass":
        return compass.TOKENIZER
    data = config.data
    folder = data.tokenizer or (str(files) if files else "bytes")
    return load_tokenizer(folder, data.bos, data.eos, data.separator, config.model.vocab_size)


def _ends(config: ConfigDict, tokenizer: Any, template: str | None) -> tuple[int, ...]:
    """Ids that end what a run trains on: of a response, and those that the config names."""
    data = config.data
    ends = []
    if data.sft.share or answers_problems(config):
        ends.append(end_of_turn(tokenizer, template))
    if data.eos:
        ends.append(tokenizer.eos)
    if data.separator:
        ends.append(tokenizer.separator)
    return tuple(dict.fromkeys(end for end in ends if end is not None))


def _vocabulary(tokenizer: Tokenizer, size: int) -> Vocabulary:
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


def _check_room(config: ConfigDict, field: str, length: int, end: int, what: str) -> None:
    """Refuses thoughts and responses that cannot end where those that do not are masked."""
    if length <= end and config.rlp.unclosed == "mask":
        name = field.rpartition(".")[2]
        raise UserError(
            f"{field}={length} leaves no room for {what} of {end} token{'s' * (end > 1)} after a "
            f"word, so rlp.unclosed='mask' would mask everything; set {name} to {end + 1} or more, "
            "or unclosed to 'append'"
        )


def _model(config: ConfigDict, used: int) -> ModelConfig:
    size = config.model.vocab_size or -(-used // 64) * 64
    if used > INT32:
        raise UserError(
            f"the tokenizer (data.tokenizer, or that of the model) has ids up to {used - 1}, and "
            f"an embedding has at most {INT32} rows; take another one"
        )
    if size > INT32:
        raise UserError(f"model.vocab_size={size}; it must be at most {INT32}")
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


def _check_waves(config: ConfigDict, rlp: RLPSettings, shards: int) -> None:
    documents = config.batch_size
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
    waves = {
        field: wave_shape(rows, branches, unit, getattr(rlp, field), shards, f"rlp.{field}")
        for field, (rows, unit) in wanted.items()
    }
    if find(rlp.objective).reads_in_another and waves["max_branches_in_flight"][0] < 2:
        raise UserError(
            f"objective={rlp.objective!r} puts thoughts into another document of their wave, and a "
            "wave has one; raise batch_size or rlp.max_branches_in_flight"
        )


def _evaluated_at_once(config: ConfigDict, shards: int) -> int:
    """Held-out documents whose thoughts are sampled together: as many on each device."""
    if not config.rlp.max_branches_in_flight:
        return config.batch_size
    branches = config.evaluation.forks_per_document * config.evaluation.thoughts
    each = config.rlp.max_branches_in_flight // (branches * shards)
    return min(config.batch_size, max(1, each) * shards)


def _prompt(config: ConfigDict, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Token ids of the thinking prompt, which goes between a row's bos and its text."""
    if config.rlp.prompt == "none":
        return ()
    text = DEFAULT_PROMPT
    if config.rlp.prompt != "default":
        text = file_text("rlp.prompt", config.rlp.prompt, "'default' or 'none'")
    return tuple(tokenizer.encode(text))


def _settings(config: ConfigDict, tokenizer: Tokenizer) -> RLPSettings:
    """Of thoughts: where training samples none, of the held-out figures alone."""
    thinks_of_text = thinks(config) and not answers_problems(config)
    objective = config.objective if thinks_of_text else "rlp"
    bos = len(tokenizer.bos)
    own = {
        "prompt": _prompt(config, tokenizer),
        "bos": bos,
        "min_prefix": max(config.rlp.min_prefix, bos),
        "objective": objective,
    }
    return RLPSettings(**(dict(config.rlp) | own))


def _answering(config: ConfigDict, made: Method) -> Answering | None:
    """How responses to problems are sampled and checked; None for a run without problems."""
    if not asks_problems(config):
        return None
    data, tokenizer = config.data, made.tokenizer
    verifier = _named(lambda: find_verifier(data.problems.verifier))
    objective = config.objective if answers_problems(config) else "rlvr"
    if not verifier.compares and find(objective).reward is rewards.agrees:
        raise UserError(
            f"objective={objective!r} rewards the answer of the majority, and the function that "
            f"data.problems.verifier={data.problems.verifier!r} names compares no answers; give a "
            "Verifier with extract and equal, or set objective to 'rlvr'"
        )
    settings = dataclasses.replace(made.settings, objective=objective)
    texts = None
    if find(objective).weighs_planning:
        texts = tokenizer.token_bytes()
        if not any(texts):
            raise UserError(
                f"objective={objective!r} finds phrases in the bytes of tokens, and those of this "
                "tokenizer have none; take byte-level BPE, or objective='rlvr'"
            )
    frame = make_frame(tokenizer, made.template, data.problems.think)
    return Answering(
        settings=response_settings(settings, data.problems.response_length),
        vocabulary=response_vocabulary(made.vocabulary, frame.opening, frame.end),
        frame=frame,
        grader=make_grader(config, begins_in_thought(frame, tokenizer)),
        decode=tokenizer.decode,
        trained=answers_problems(config),
        texts=texts,
        phrases=phrases(config),
    )


def root_keys(seed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Keys of the parameters, of training and of evaluation."""
    parameters, training, evaluation = jax.random.split(jax.random.key(seed), 3)
    return parameters, training, evaluation
