"""Where the answer of a response stands, and how sure the response is of it."""

import re

_CONFIDENCE = re.compile(
    r"<confidence>\s{0,9}([0-9]{0,9}\.[0-9]{1,30}|[0-9]{1,9})\s{0,9}(%?)\s{0,9}</confidence>"
)


def after_thought(response: str, open_tag: str, close_tag: str, opened: bool) -> str | None:
    """What follows the last thought of a response; None where that thought was never closed.

    Args:
      response: as it was sampled.
      open_tag, close_tag: around a thought.
      opened: the response begins inside of a thought, whose opening tag is not part of it.
    """
    _, closed, rest = response.rpartition(close_tag)
    if open_tag and open_tag in rest:
        return None
    return None if opened and not closed else rest


def where_the_answer_is(response: str) -> str:
    """What stands last between <answer> and </answer>, else all but the stated confidence."""
    end = response.rfind("</answer>")
    start = response.rfind("<answer>", 0, max(end, 0))
    if start >= 0:
        return response[start + len("<answer>") : end]
    return _CONFIDENCE.sub("", response)


def stated_confidence(response: str) -> float | None:
    """The last number between <confidence> and </confidence>, as a share; percent count as such."""
    found = _CONFIDENCE.findall(response)
    if not found:
        return None
    number, percent = found[-1]
    share = float(number) / (100 if percent else 1)
    return share if 0 <= share <= 1 else None
