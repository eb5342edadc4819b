"""What steps cost, and what a run has used so far."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a step cost. Tokens are those that took part, FLOPs those that were executed."""

    documents: int  # document tokens read
    rollout: int  # tokens sampled
    update: int  # slots through the differentiated pass
    flops: int
    seconds: dict[str, float]  # by stage


@dataclasses.dataclass
class Totals:
    """What a run has used so far; saved with every checkpoint."""

    position: int = 0  # records of the data stream
    tokens_documents: int = 0
    tokens_rollout: int = 0
    tokens_update: int = 0
    flops: int = 0
    seconds_train: float = 0.0
    seconds_evaluate: float = 0.0

    def add(self, cost: Cost) -> None:
        """Adds a step."""
        self.tokens_documents += cost.documents
        self.tokens_rollout += cost.rollout
        self.tokens_update += cost.update
        self.flops += cost.flops

    def metrics(self) -> dict[str, int]:
        """The cumulative counts, as metrics."""
        names = ("tokens_documents", "tokens_rollout", "tokens_update", "flops")
        return {name: getattr(self, name) for name in names}
