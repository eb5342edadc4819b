"""A problem with an answer and a worked solution, as a document with or without a thought."""

from dataclasses import dataclass

MARKER = "Answer:"  # the end of a question; thoughts follow it


@dataclass(frozen=True)
class Problem:
    """A problem.

    Attributes:
      question: its text.
      thought: the solution that a thought shows.
      answer: a number.
    """

    question: str
    thought: str
    answer: str

    @property
    def asked(self) -> str:
        """What comes before the thought and the answer: the prompt of RLVR."""
        return f"Question: {self.question}\n{MARKER}"

    def document(self, thought: bool = False) -> str:
        """Return the problem with its answer, and with its thought between the tags before it."""
        inner = f"<think>{self.thought}</think>" if thought else ""
        return f"{self.asked}{inner} {self.answer}."
