"""Find the part of a response that contains its answer, and its stated confidence."""

import re

_CONFIDENCE = re.compile(
    r"<confidence>\s{0,9}([0-9]{0,9}\.[0-9]{1,30}|[0-9]{1,9})\s{0,9}(%?)\s{0,9}</confidence>"
)


def after_thought(response: str, open_tag: str, close_tag: str, opened: bool) -> str | None:
    """Return the text after the last thought of a response; None if that thought is not closed.

    Args:
      response: the response as it was sampled.
      open_tag, close_tag: the tags around a thought.
      opened: the response begins inside a thought, whose opening tag is not part of it.
    """
    _, closed, rest = response.rpartition(close_tag)
    if open_tag and open_tag in rest:
        return None
    return None if opened and not closed else rest


def answer_region(response: str) -> str:
    """Return the text in the last <answer>…</answer>; without these tags, the whole response except
    its stated confidence."""
    end = response.rfind("</answer>")
    start = response.rfind("<answer>", 0, max(end, 0))
    if start >= 0:
        return response[start + len("<answer>") : end]
    return _CONFIDENCE.sub("", response)


def stated_confidence(response: str) -> float | None:
    """Return the number in the last <confidence>…</confidence>, a share or a percentage, in [0, 1];
    None if there is no such number."""
    matches = _CONFIDENCE.findall(response)
    if not matches:
        return None
    number, percent = matches[-1]
    share = float(number) / (100 if percent else 1)
    return share if 0 <= share <= 1 else None
