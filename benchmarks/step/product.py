"""The network, settings, vocabulary, trainer and batches of this project for a workload."""

import dataclasses
from typing import Any

import jax
import numpy as np

from benchmarks.measure import make_model, optimizer_of
from benchmarks.step.workload import Workload
from configs.default import get_config
from models.config import ModelConfig
from models.sharding import make_mesh
from rlp.data.batch import Batch
from rlp.engine.branches import Vocabulary, vocabulary
from rlp.engine.method import Method
from rlp.engine.optimizer import Optimizer
from rlp.engine.placement import state_shardings
from rlp.engine.step import RLPSettings
from rlp.training.trainers import RLPTrainer


@dataclasses.dataclass(frozen=True)
class Case:
    """A workload in terms of this project."""

    model: ModelConfig
    settings: RLPSettings
    vocabulary: Vocabulary
    optimizer: Optimizer


def make_case(sizes: Workload) -> Case:
    """Return the case of a workload, with all other fields from the default config."""
    default = get_config()
    method = {
        "group_size": sizes.group,
        "forks_per_document": sizes.positions,
        "thought_length": sizes.thought,
        "horizon": sizes.horizon,
        "horizon_weighting": "sum",
        "temperature": sizes.temperature,
        "positions": "given",
        "prompt": (),
        "thought_length_schedule": (),
        "bos": 0,
        "baseline": "ema",
        "ema_decay": sizes.ema,
        "updates_per_rollout": 1,
        "unclosed": "append",  # an untrained network hardly ever closes a thought
        "length_normalization": "thought",
        "next_token_weight": 0.0,
        "max_branches_in_flight": sizes.max_branches_in_flight,
        "update_micro_batch": sizes.micro_batch,
    }
    words = {"pad": 0, "eos": 1, "separator": 1, "used": sizes.vocab, "size": sizes.vocab}
    return Case(
        model=make_model(sizes),
        settings=RLPSettings(**(dict(default.rlp) | {"objective": "rlp"} | method)),
        vocabulary=vocabulary(think_open=(3,), think_close=(4,), bos=(2,), **words),
        optimizer=optimizer_of(sizes),
    )


def make_trainer(case: Case) -> tuple[RLPTrainer, Any]:
    """Return the trainer on one device, and the shardings of its state."""
    mesh = make_mesh(devices=jax.devices()[:1])
    shardings = state_shardings(mesh, case.model, case.optimizer, baseline=True)
    method = Method(case.model, case.settings, case.vocabulary)
    trainer = RLPTrainer(method, case.optimizer, mesh, shardings)
    return trainer, shardings


def batches(sizes: Workload, count: int) -> list[Batch]:
    """Return the batches of the first `count` steps: one document per row, without padding."""
    tokens = np.array(sizes.documents(count * sizes.docs), np.int32)
    position = np.arange(sizes.length, dtype=np.int32)
    shape = (sizes.docs, sizes.length)
    forks = np.array(sizes.forks(), np.int32)
    return [
        Batch(
            tokens=tokens[first : first + sizes.docs],
            segment=np.ones(shape, np.int32),
            position=np.broadcast_to(position, shape),
            index=np.arange(first, first + sizes.docs, dtype=np.int32),
            forks=np.broadcast_to(forks, (sizes.docs, sizes.positions)),
        )
        for first in range(0, count * sizes.docs, sizes.docs)
    ]
