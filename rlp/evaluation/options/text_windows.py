"""Long texts in windows, each token predicted once, as lm-evaluation-harness cuts them."""

import dataclasses
from collections.abc import Iterator, Sequence


@dataclasses.dataclass(frozen=True)
class Window:
    """A part of a text with the tokens before it.

    Attributes:
      ids: the tokens before the part, at least one, and the part.
      first: index in the text of the first token of the part.
      count: tokens of the part.
    """

    ids: list[int]
    first: int
    count: int


def rolling_windows(tokens: Sequence[int], prefix: int, window: int) -> Iterator[Window]:
    """Yield windows whose parts together are the text.

    Before the first part there is the prefix. The parts have `window` tokens each, except for the
    last one, before which there are as many tokens as the network can read with it. This equals
    `get_rolling_token_windows` of lm-evaluation-harness 0.4.13 with context_len=1, followed by
    `make_disjoint_window`.

    Args:
      tokens: of the text.
      prefix: id before the text.
      window: most tokens that the network reads at a time; the last one of `Window.ids` is only
        predicted.
    """
    whole = [prefix, *tokens]
    for first in range(0, len(tokens), window):
        stop = min(first + window, len(tokens))
        yield Window(whole[max(0, stop - window) : stop + 1], first, stop - first)
