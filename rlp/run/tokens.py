"""From a config to tokens: what stands before, around and after the texts of a run."""

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

# Ours, in the spirit of the paper's: think briefly about what comes next, then go on in style.
DEFAULT_PROMPT = (
    "You are given the beginning of a text. Think briefly, inside the thinking tags, about what "
    "comes next: recall, infer or calculate what the next words depend on. Then continue the text "
    "in the same style, as if nothing had come between.\n\n"
)


def make_vocabulary(tokenizer: Tokenizer, size: int) -> Vocabulary:
    """The ids with a meaning in a network with so many rows of the embedding.

    Raises:
      ValueError: the tokenizer has more ids.
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
    """Token ids of the thinking prompt, which goes between a row's bos and its text."""
    if config.rlp.prompt == "none":
        return ()
    text = DEFAULT_PROMPT
    if config.rlp.prompt != "default":
        text = file_text("rlp.prompt", config.rlp.prompt, "'default' or 'none'")
    return tuple(tokenizer.encode(text))


def chat_template(config: Config, tokenizer: Tokenizer, files: Path | None) -> str | None:
    """The Jinja template that makes prompts of messages; None where they are taken as they are.

    Args:
      config: of the run.
      tokenizer: of the run.
      files: of the run, or of what it starts from, in the Hugging Face format. A run that has begun
        keeps its template there, so the file that the config names may be gone.
    """
    named = config.data.chat_template
    if named == "none":
        return None
    if named and not isinstance(tokenizer, FolderTokenizer):
        raise UserError.of(
            "data.chat_template",
            named,
            ": bytes have no tokens for a chat template; use a tokenizer folder, or leave it ''",
        )
    if named and (Path(named).exists() or not same_template(config, files)):
        return file_text("data.chat_template", named, "'' or 'none'")
    if files is not None and config.data.tokenizer and same_tokenizer(config, files):
        kept = files / TEMPLATE  # of a run with this tokenizer
        if kept.is_file():
            return kept.read_text(encoding="utf-8")
    return tokenizer.chat_template


def training_ends(
    config: Config, tokenizer: Tokenizer, template: str | None, responses: bool
) -> tuple[int, ...]:
    """Ids that end what a run trains on.

    Args:
      config: of the run.
      tokenizer: of the run.
      template: of its chats.
      responses: it trains on responses, each of which has an end.
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


def before_texts(config: Config, tokenizer: Tokenizer) -> str:
    """What stands before every text of a run, in words."""
    names = " ".join(f"{tokenizer.decode([i])!r} (token {i})" for i in tokenizer.bos)
    why = f"data.bos={config.data.bos!r}" if config.data.bos else "as its tokenizer does"
    return f"before every text: {names or 'nothing'} ({why})"
