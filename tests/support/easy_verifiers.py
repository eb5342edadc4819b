"""A verifier that an untrained model sometimes satisfies; worker processes import it."""

from rlp.answers.verifiers import Verifier, whole_text


def _whatever(found: str, answer: str) -> bool:
    return True


ANYTHING = Verifier(whole_text, _whatever)  # any text after the thought is correct
