"""From a config to what computes with a network on any machine: its shape, method and tokens."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.default import Config
from configs.fields import INT32
from models.config import ModelConfig
from rlp.engine.method import Method
from rlp.engine.step import RLPSettings
from rlp.interop.init_from import network
from rlp.objectives.options import Options
from rlp.run import datasets, tasks, tokens
from rlp.run.objective_options import options_of
from rlp.run.tasks import Task
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer

# Is called with the network, how many ids the tokenizer has, and with what a training step samples
# (None for nothing), before anything is made of them. It may refuse them.
Look = Callable[[ModelConfig, int, RLPSettings | None], None]


@dataclasses.dataclass(frozen=True)
class TextMethod(Method):
    """A method with what turns text into tokens and back.

    Attributes:
      tokenizer: of the run.
      template: Jinja, makes prompts of messages; None where they are taken as they are.
      ends: ids that end what is trained on, besides those that the run started with.
    """

    tokenizer: Tokenizer
    template: str | None
    ends: tuple[int, ...]

    @property
    def separator(self) -> str:
        """What stands between the pieces of a text when it is shown."""
        return self.tokenizer.between_pieces


def build_method(config: Config, files: Path | None = None, look: Look | None = None) -> TextMethod:
    """What a run computes with, without its mesh and its data.

    Args:
      config: of the run.
      files: folder of the tokenizer where the config names none; None for bytes.
      look: may refuse the network.

    Raises:
      UserError: for a value that cannot be used, naming its field.
    """
    task = tasks.of(config)
    tokenizer = datasets.find(config.data.kind).tokenizer(config, files)
    model = named(lambda: _model(config, tokenizer.vocab_size))
    settings = _settings(config, task, tokenizer)
    if look:
        look(model, tokenizer.vocab_size, task.sampling(settings))
    _check_room(config, task, tokenizer)
    words = named(lambda: tokens.make_vocabulary(tokenizer, model.vocab_size))
    template = tokens.chat_template(config, tokenizer, files)
    ends = tokens.training_ends(config, tokenizer, template, task.reads_responses)
    return TextMethod(model, settings, words, tokenizer, template, ends)


def named(make: Callable[[], Any]) -> Any:
    """A ValueError of the models' own checks, which name the field, as the user's."""
    try:
        return make()
    except UserError:
        raise
    except ValueError as error:
        field = re.search(r"\b(model|rlp|mesh)(\.[a-z_]+)+", str(error))
        raise UserError(str(error), field=field[0] if field else "") from error


def _model(config: Config, used: int) -> ModelConfig:
    size = config.model.vocab_size or -(-used // 64) * 64
    if used > INT32:
        raise UserError(
            f"the tokenizer (data.tokenizer, or that of the model) has ids up to {used - 1}, and "
            f"an embedding has at most {INT32} rows; take another one",
            field="data.tokenizer",
            value=config.data.tokenizer,
        )
    if size > INT32:
        raise UserError.of("model.vocab_size", size, f"; it must be at most {INT32}")
    if size < used:
        raise UserError.of("model.vocab_size", size, f"is smaller than the tokenizer's {used} ids")
    return network(dict(config.model) | {"vocab_size": size})


def _settings(config: Config, task: Task, tokenizer: Tokenizer) -> RLPSettings:
    """Of thoughts: where training samples none, of the held-out figures alone."""
    bos = len(tokenizer.bos)
    own = {
        "prompt": tokens.thinking_prompt(config, tokenizer),
        "bos": bos,
        "min_prefix": max(config.rlp.min_prefix, bos),
        "objective": task.thought_objective,
        "options": Options(options_of(config)),
    }
    return RLPSettings(**(dict(config.rlp) | own))


def _check_room(config: Config, task: Task, tokenizer: Tokenizer) -> None:
    """Refuses thoughts and responses that cannot end where those that do not are masked."""
    limit = task.limit
    end = limit.end_tokens(tokenizer)
    if limit.length <= end and config.rlp.unclosed == "mask":
        name = limit.field.rpartition(".")[2]
        raise UserError.of(
            limit.field,
            limit.length,
            f"leaves no room for {limit.end} of {end} token{'s' * (end > 1)} after a word, so "
            f"rlp.unclosed='mask' would mask everything; set {name} to {end + 1} or more, or "
            "unclosed to 'append'",
        )
