"""Build the model configuration, settings, tokenizer and special tokens from a config."""

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
from rlp.run import datasets, tasks, thought_lengths, tokens
from rlp.run.objective_options import options_of
from rlp.run.tasks import Task
from rlp.run.tasks.task import THOUGHT
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer

# A callback that may raise before anything is allocated. Its arguments are the model configuration,
# the number of ids of the tokenizer, and the settings of sampling (None if training samples
# nothing).
ModelCheck = Callable[[ModelConfig, int, RLPSettings | None], None]


@dataclasses.dataclass(frozen=True)
class TextMethod(Method):
    """A method with a tokenizer.

    Attributes:
      tokenizer: The tokenizer of the run.
      template: The Jinja chat template; None if messages are used without a template.
      ends: Ids that end training texts, in addition to those of the initial model.
    """

    tokenizer: Tokenizer
    template: str | None
    ends: tuple[int, ...]

    @property
    def separator(self) -> str:
        """The separator between the pieces of a text when it is displayed."""
        return self.tokenizer.between_pieces


def build_method(
    config: Config, files: Path | None = None, check_model: ModelCheck | None = None
) -> TextMethod:
    """Build the method of a run, which does not depend on its mesh or data.

    Args:
      config: The config of the run.
      files: The tokenizer folder if the config does not name one; None for bytes.
      check_model: A callback that may refuse the model; see `ModelCheck`.

    Raises:
      UserError: If a value of the config cannot be used; names its field.
    """
    task = tasks.of(config)
    tokenizer = datasets.find(config.data.kind).tokenizer(config, files)
    model = as_user_error(lambda: _model(config, tokenizer.vocab_size))
    settings = _settings(config, task, tokenizer)
    if check_model:
        check_model(model, tokenizer.vocab_size, task.sampling_settings(settings))
    _check_room(config, task, tokenizer)
    words = as_user_error(lambda: tokens.make_vocabulary(tokenizer, model.vocab_size))
    template = tokens.chat_template(config, tokenizer, files)
    ends = tokens.training_ends(config, tokenizer, template, task.reads_responses)
    return TextMethod(model, settings, words, tokenizer, template, ends)


def as_user_error(make: Callable[[], Any]) -> Any:
    """Call `make`, and convert a ValueError, whose message names a field, to a UserError."""
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
            f"the tokenizer (data.tokenizer, or that of the model) has ids up to {used - 1}, but "
            f"an embedding has at most {INT32} rows; use another tokenizer",
            field="data.tokenizer",
            value=config.data.tokenizer,
        )
    if size > INT32:
        raise UserError.of("model.vocab_size", size, f"; it must be at most {INT32}")
    if size < used:
        raise UserError.of(
            "model.vocab_size",
            size,
            f"is smaller than the tokenizer's {used} ids; set it to {used} or more",
        )
    return network(dict(config.model) | {"vocab_size": size})


def _settings(config: Config, task: Task, tokenizer: Tokenizer) -> RLPSettings:
    """Return the settings of thoughts; if training samples none, they apply to evaluation only."""
    bos = len(tokenizer.bos)
    derived = {
        "prompt": tokens.thinking_prompt(config, tokenizer),
        "thought_length_schedule": thought_lengths.schedule(config),
        "bos": bos,
        "min_prefix": max(config.rlp.min_prefix, bos),
        "objective": task.thought_objective,
        "options": Options(options_of(config)),
    }
    return RLPSettings(**(dict(config.rlp) | derived))


def _check_room(config: Config, task: Task, tokenizer: Tokenizer) -> None:
    """Refuse a length limit that leaves no room to close, if unclosed samples are masked."""
    if config.rlp.unclosed != "mask":
        return
    limit, rlp = task.limit, config.rlp
    end, words = limit.end_tokens(tokenizer), 1
    limits: list[tuple[str, int | str, int]] = [(limit.field, limit.length, limit.length)]
    if limit.field == THOUGHT:
        words, text = rlp.min_thought_length, rlp.thought_length_schedule
        of_schedule = thought_lengths.schedule(config)
        limits += [(thought_lengths.SCHEDULE, text, length) for _, length in of_schedule]
    after = "a word" if words == 1 else f"rlp.min_thought_length={words} tokens"
    for field, value, length in limits:
        if length < words + end:
            raise UserError.of(
                field,
                value,
                f"leaves no room for {limit.end} of {end} token{'s' * (end > 1)} after {after}, so "
                f"rlp.unclosed='mask' would mask everything; set {field.rpartition('.')[2]} to "
                f"{words + end} or more, or unclosed to 'append'",
            )
