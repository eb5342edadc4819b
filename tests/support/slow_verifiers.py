"""A verifier whose module takes longer to import than a check may take, for `grading_test`."""

import time

from rlp.answers.verifiers import Verifier, same_text, whole_text

time.sleep(2.5)

SLOW_TO_COME = Verifier(whole_text, same_text)
