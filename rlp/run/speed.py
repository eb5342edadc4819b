"""Throughput metrics of a step, and the metrics shown in the progress bar."""

from collections.abc import Mapping, Sequence

import jax

from rlp.capacity import chips
from rlp.training.cost import Cost


class Speed:
    """Computes the throughput metrics of steps."""

    def __init__(self, devices: Sequence[jax.Device], dtype: str) -> None:
        """Look up the peak FLOP/s of the devices.

        Args:
          devices: All devices of the mesh.
          dtype: The value of `model.compute_dtype`.
        """
        peak = chips.peak_flops(devices[0].device_kind, dtype)
        self._peak = peak and peak * len(devices)

    def metrics(self, cost: Cost, seconds: float) -> dict[str, float]:
        """Return `tokens_per_second` of a step, and `mfu` if the peak of the chips is known.

        Args:
          cost: The tokens and FLOPs of the step.
          seconds: The wall-clock time of the step.
        """
        metrics = {"tokens_per_second": (cost.documents + cost.rollout) / seconds}
        if self._peak:
            metrics["mfu"] = cost.model_flops / (seconds * self._peak)
        return metrics


def brief(metrics: Mapping[str, float]) -> str:
    """Return the metrics of a step that the progress bar shows."""
    speed = f"{metrics['tokens_per_second']:.3g} tok/s"
    if "mfu" in metrics:
        speed += f", MFU {metrics['mfu']:.1%}"
    if "reward_mean" not in metrics:
        return f"loss {metrics['loss']:.3f}, {speed}"
    closed = f"closed {metrics['closed_fraction']:.2f}"
    return f"reward {metrics['reward_mean']:+.3f}, {closed}, {speed}"
