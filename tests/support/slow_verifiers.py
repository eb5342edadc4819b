"""A verifier whose import takes longer than the time limit of a check, for `grading_test`."""

import time

from rlp.answers.verifiers import Verifier, same_text, whole_text

time.sleep(2.5)

SLOW_TO_COME = Verifier(whole_text, same_text)
