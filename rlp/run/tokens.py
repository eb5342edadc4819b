"""Special tokens, the thinking prompt and the chat template of a run, from its config."""

from pathlib import Path

from configs.default import Config
from rlp.engine.branches import Vocabulary, vocabulary
from rlp.interop.init_from import same_template, same_tokenizer
from rlp.run.text_fields import file_text
from rlp.runtime.errors import UserError
from rlp.tokenizers.files import TEMPLATE
from rlp.tokenizers.folder_tokenizer import FolderTokenizer
from rlp.tokenizers.tokenizer import Tokenizer
from rlp.tokenizers.turns import end_of_turn

# Ours, in the spirit of the paper's prompt.
DEFAULT_PROMPT = (
    "You are given the beginning of a text. Think briefly, inside the thinking tags, about what "
    "comes next: recall, infer or calculate what the next words depend on. Then continue the text "
    "in the same style, as if nothing had come between.\n\n"
)


def make_vocabulary(tokenizer: Tokenizer, size: int) -> Vocabulary:
    """Return the special ids of a model with `size` embedding rows.

    Raises:
      ValueError: If the tokenizer has more than `size` ids.
    """
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


def thinking_prompt(config: Config, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the token ids of the thinking prompt, inserted between a row's BOS and its text."""
    if config.rlp.prompt == "none":
        return ()
    text = DEFAULT_PROMPT
    if config.rlp.prompt != "default":
        text = file_text("rlp.prompt", config.rlp.prompt, "'default' or 'none'")
    return tuple(tokenizer.encode(text))


def chat_template(config: Config, tokenizer: Tokenizer, files: Path | None) -> str | None:
    """Return the Jinja chat template; None if messages are used without a template.

    Args:
      config: The config of the run.
      tokenizer: The tokenizer of the run.
      files: The Hugging Face files of the run, or of its initial model. A run saves its template
        there when it begins, so the file that the config names may have been deleted since.

    Raises:
      UserError: If the template file cannot be read, or the tokenizer does not support templates.
    """
    name = config.data.chat_template
    if name == "none":
        return None
    if name and not isinstance(tokenizer, FolderTokenizer):
        raise UserError.of(
            "data.chat_template",
            name,
            ": the byte tokenizer does not support chat templates; set data.tokenizer to a folder, "
            "or set data.chat_template to ''",
        )
    if name and (Path(name).exists() or not same_template(config, files)):
        return file_text("data.chat_template", name, "'' or 'none'")
    if files is not None and config.data.tokenizer and same_tokenizer(config, files):
        saved = files / TEMPLATE  # from a run with this tokenizer
        if saved.is_file():
            return saved.read_text(encoding="utf-8")
    return tokenizer.chat_template


def training_ends(
    config: Config, tokenizer: Tokenizer, template: str | None, responses: bool
) -> tuple[int, ...]:
    """Return the ids that end the training texts of a run.

    Args:
      config: The config of the run.
      tokenizer: The tokenizer of the run.
      template: The chat template.
      responses: Whether it trains on responses, each of which ends with an end token.
    """
    data = config.data
    ends = []
    if responses:
        ends.append(end_of_turn(tokenizer, template))
    if data.eos:
        ends.append(tokenizer.eos)
    if data.separator:
        ends.append(tokenizer.separator)
    return tuple(dict.fromkeys(end for end in ends if end is not None))


def bos_description(config: Config, tokenizer: Tokenizer) -> str:
    """Return a log line about the BOS that precedes every text of a run."""
    names = " ".join(f"{tokenizer.decode([i])!r} (id {i})" for i in tokenizer.bos)
    source = (
        f"set by data.bos={config.data.bos!r}" if config.data.bos else "the tokenizer's default"
    )
    return f"BOS: {names or 'none'}, {source}"
