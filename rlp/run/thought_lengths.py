"""The limits of the length of thoughts: the minimum, and the schedule of the maximum."""

import itertools
import re

from configs.default import Config
from rlp.runtime.errors import UserError

SCHEDULE = "rlp.thought_length_schedule"


def schedule(config: Config) -> tuple[tuple[int, int], ...]:
    """Return the schedule of the maximum length: pairs of a number of steps taken and the maximum
    tokens from then on, from step 0 on; () if it is always `rlp.thought_length`.

    Raises:
      UserError: If it is not of the form "0:TOKENS,STEP:TOKENS,…" with rising steps, or a limit is
        not between `rlp.min_thought_length` and `rlp.thought_length`.
    """
    text, rlp = config.rlp.thought_length_schedule, config.rlp
    if not text:
        return ()
    number = r"\d{1,9}"
    steps: list[int] = []
    limits: list[int] = []
    if re.fullmatch(rf"{number}:{number}(,{number}:{number})*", text, re.ASCII):
        pairs = (pair.split(":") for pair in text.split(","))
        steps, limits = map(list, zip(*(map(int, pair) for pair in pairs), strict=True))
    if steps[:1] != [0] or any(later <= step for step, later in itertools.pairwise(steps)):
        raise UserError.of(
            SCHEDULE,
            text,
            "is not 0:TOKENS,STEP:TOKENS,… with rising steps; '0:64,500:128' is 64 tokens before "
            "step 500 is taken and 128 from then on",
        )
    low, high = rlp.min_thought_length, rlp.thought_length
    for tokens in limits:
        if not low <= tokens <= high:
            raise UserError.of(
                SCHEDULE,
                text,
                f"has the limit {tokens}; it must be between rlp.min_thought_length={low} and "
                f"rlp.thought_length={high}",
            )
    return tuple(zip(steps, limits, strict=True))


def check(config: Config) -> None:
    """Check that thoughts can have their minimum length, and the form of the schedule.

    Raises:
      UserError: If not; names the field.
    """
    low, high = config.rlp.min_thought_length, config.rlp.thought_length
    if low > high:
        raise UserError.of(
            "rlp.min_thought_length",
            low,
            f"is more than rlp.thought_length={high}; lower it, or raise thought_length",
        )
    schedule(config)
