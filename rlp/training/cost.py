"""What steps cost, and what a run has used so far."""

import dataclasses

# Of the FLOPs:
PARTS = (
    "prefill",  # documents, with the thinking prompt, read by theta
    "decode",  # thoughts sampled
    "scoring",  # targets by theta, after thoughts and without; the choice of forks
    "baseline",  # targets by phi, S_ema
    "reference",  # thoughts by the network of the start, for a KL term
    "update",  # loss and gradient, forward and backward
    "optimizer",  # the update of theta, and of phi
)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a step cost. Tokens are those that took part, FLOPs those that were executed."""

    documents: int  # document tokens read
    rollout: int  # tokens sampled
    update: int  # slots through the differentiated pass
    flops: dict[str, int]  # by part, of `PARTS`; a part that is not there cost nothing
    model_flops: int  # all of them, without those that `model.remat` computes again
    seconds: dict[str, float]  # by stage


@dataclasses.dataclass
class Totals:
    """What a run has used so far; saved with every checkpoint."""

    position: int = 0  # records of the data stream
    tokens_documents: int = 0
    tokens_rollout: int = 0
    tokens_update: int = 0
    flops: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    seconds_train: float = 0.0
    seconds_device: float = 0.0  # of training, times the devices that took part
    seconds_evaluate: float = 0.0
    last_step: dict[str, float] = dataclasses.field(default_factory=dict)  # its share of `metrics`

    def add(self, cost: Cost, seconds: float, devices: int) -> None:
        """Adds a step that took so long on so many devices."""
        before = self.metrics()
        self.tokens_documents += cost.documents
        self.tokens_rollout += cost.rollout
        self.tokens_update += cost.update
        self.flops = {part: used + cost.flops.get(part, 0) for part, used in self.flops.items()}
        self.seconds_train += seconds
        self.seconds_device += seconds * devices
        self.last_step = {name: used - before[name] for name, used in self.metrics().items()}

    def metrics(self) -> dict[str, float]:
        """The cumulative counts, as metrics."""
        names = ("tokens_documents", "tokens_rollout", "tokens_update", "seconds_device")
        counts = {name: getattr(self, name) for name in names}
        parts = {f"flops_{part}": used for part, used in self.flops.items()}
        return counts | {"flops": sum(self.flops.values())} | parts
