"""A verifier that an untrained network satisfies now and then; processes import it."""

from rlp.answers.verifiers import Verifier, whole_text


def _whatever(found: str, answer: str) -> bool:
    return True


ANYTHING = Verifier(whole_text, _whatever)  # right is who says something after the thought
