"""A model that is evaluated: its network on a mesh, its tokenizer, and how it reads prompts."""

import dataclasses
import functools
from collections.abc import Mapping

from rlp.evaluation.generation.generator import Generator
from rlp.evaluation.options.option_scores import OptionScorer
from rlp.tokenizers import prompts
from rlp.tokenizers.tokenizer import THINK_OPEN, Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A model that is evaluated.

    Attributes:
      name: its name in tables.
      identity: what tells its parameters from those of other models: its step and a hash.
      tokenizer: its tokenizer.
      template: its Jinja chat template; None for a base model.
      ends: ids that end a text.
      generator: generates text.
      scorer: scores options.
      longest: most tokens that it reads at a time; None for no limit.
    """

    name: str
    identity: Mapping[str, str | int | None]
    tokenizer: Tokenizer
    template: str | None
    ends: tuple[int, ...]
    generator: Generator
    scorer: OptionScorer
    longest: int | None = None

    @functools.cached_property
    def chat_ends(self) -> tuple[int, ...]:
        """Ids that end a response in a chat."""
        return prompts.chat_ends(self.tokenizer, self.template, self.ends)

    def prompt_ids(self, text: str, chat: bool, think: bool) -> tuple[int, ...]:
        """Return the ids of a prompt.

        Args:
          text: the prompt.
          chat: it is the message of a user, which the chat template formats; otherwise the BOS
            precedes it.
          think: the opening thinking tag follows it.

        Raises:
          UserError: If the text is empty or cannot be encoded, or there is no chat template.
        """
        opening = self.tokenizer.think_open if think else ()
        if not chat:
            return (*prompts.with_bos(self.tokenizer, self.tokenizer.encode(text)), *opening)
        return (*self.tokenizer.encode(self._chat(text)), *opening)

    @functools.cached_property
    def opens_thought(self) -> bool:
        """Whether the chat template ends with the opening thinking tag.

        Raises:
          UserError: If there is no chat template, or it fails.
        """
        return self._chat("?").rstrip().endswith(THINK_OPEN)

    def begins_in_thought(self, ids: tuple[int, ...]) -> bool:
        """Return whether a response to a prompt begins inside a thought."""
        opening = self.tokenizer.think_open
        trimmed = self.tokenizer.decode(ids).rstrip()
        return ids[-len(opening) :] == opening or trimmed.endswith(THINK_OPEN)

    def _chat(self, text: str) -> str:
        """Return the message of a user as the chat template formats it."""
        messages = [{"role": "user", "content": text}]
        return prompts.chat_text(self.name, self.tokenizer, self.template, messages)
