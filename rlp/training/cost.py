"""The cost of a step, and the totals of a run: tokens, FLOPs and seconds."""

import dataclasses

# Parts of the FLOPs of a step:
PARTS = (
    "prefill",  # prefill of documents with the thinking prompt by theta
    "decode",  # sampling of thoughts
    "scoring",  # targets under theta, with and without thoughts; scores that choose forks
    "baseline",  # targets under phi, S_ema
    "reference",  # thoughts under pi_ref, for a KL term
    "update",  # loss and gradient, forward and backward
    "optimizer",  # updates of theta and phi
)


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a step. Only FLOPs and `update` include padding and dead slots."""

    documents: int  # document tokens of the batch
    rollout: int  # sampled tokens
    update: int  # tokens and slots of the differentiated passes, padding included
    flops: dict[str, int]  # executed FLOPs by part of `PARTS`; absent parts are 0
    model_flops: int  # their sum, without what `model.remat` recomputes
    seconds: dict[str, float]  # by phase


@dataclasses.dataclass
class Totals:
    """The totals of a run so far; saved with every checkpoint."""

    position: int = 0  # of the data stream, in records
    tokens_documents: int = 0
    tokens_rollout: int = 0
    tokens_update: int = 0
    flops: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    seconds_train: float = 0.0
    seconds_device: float = 0.0  # of training, multiplied by the number of devices
    seconds_evaluate: float = 0.0
    last_step: dict[str, float] = dataclasses.field(default_factory=dict)  # increments of `metrics`

    def add(self, cost: Cost, seconds: float, devices: int) -> None:
        """Add a step, given its cost, its wall-clock seconds and the number of devices."""
        before = self.metrics()
        self.tokens_documents += cost.documents
        self.tokens_rollout += cost.rollout
        self.tokens_update += cost.update
        self.flops = {part: used + cost.flops.get(part, 0) for part, used in self.flops.items()}
        self.seconds_train += seconds
        self.seconds_device += seconds * devices
        self.last_step = {name: used - before[name] for name, used in self.metrics().items()}

    def metrics(self) -> dict[str, float]:
        """Return the cumulative counts by name of metric."""
        names = ("tokens_documents", "tokens_rollout", "tokens_update", "seconds_device")
        counts = {name: getattr(self, name) for name in names}
        parts = {f"flops_{part}": used for part, used in self.flops.items()}
        return counts | {"flops": sum(self.flops.values())} | parts
