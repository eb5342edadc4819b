"""How fast a step was, and the few metrics behind the progress bar."""

from collections.abc import Mapping, Sequence

import jax

from rlp.capacity import chips
from rlp.training.cost import Cost


class Speed:
    """The metrics of speed of the steps of a run."""

    def __init__(self, devices: Sequence[jax.Device], dtype: str) -> None:
        """Args:
        devices: all devices that take the steps.
        dtype: `model.compute_dtype`.
        """
        peak = chips.peak_flops(devices[0].device_kind, dtype)
        self._peak = peak and peak * len(devices)

    def metrics(self, cost: Cost, seconds: float) -> dict[str, float]:
        """Return `tokens_per_second` of a step, and `mfu` if the peak of the chips is known.

        Args:
          cost: of the step.
          seconds: wall-clock time of the step.
        """
        metrics = {"tokens_per_second": (cost.documents + cost.rollout) / seconds}
        if self._peak:
            metrics["mfu"] = cost.model_flops / (seconds * self._peak)
        return metrics


def brief(metrics: Mapping[str, float]) -> str:
    """Return the metrics of a step that are shown behind the progress bar."""
    speed = f"{metrics['tokens_per_second']:.3g} tok/s"
    if "mfu" in metrics:
        speed += f", MFU {metrics['mfu']:.1%}"
    if "reward_mean" not in metrics:
        return f"loss {metrics['loss']:.3f}, {speed}"
    closed = f"closed {metrics['closed_fraction']:.2f}"
    return f"reward {metrics['reward_mean']:+.3f}, {closed}, {speed}"
