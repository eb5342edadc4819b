"""One training step: Algorithm 1 of the paper, and next-token training, on one state.

An RLP step is a chain of jitted stages, so that each can be timed and none is computed twice:

    read       forks are chosen, documents read by theta       a wave of documents
    rollout    G thoughts at each fork                          a wave of their forks
    no-think   S_ema, one pass per document for all its forks   a wave of documents
    evidence   S_pred on the rollout's caches, advantages       a wave of their forks
    reference  log pi_ref of the actions, for a KL term         the whole batch, in waves
    update     clipped surrogate, optimizer                     a minibatch, in micro-batches

Waves bound the caches that are alive; with enough memory there is one. theta is that of before the
updates in all stages but the last, which is taken with every minibatch of documents in turn, as
often as a rollout is passed over; phi moves to theta at the end of the step.
"""

from rlp.engine.step.reading import NoThink, Reading, no_think_stage, read_stage
from rlp.engine.step.settings import RLPSettings, copies_kept
from rlp.engine.step.thinking import (
    Evidence,
    evidence_stage,
    judgement_of,
    outcome_of,
    reference_stage,
    rollout_stage,
    verdict_stage,
)
from rlp.engine.step.update import (
    TrainState,
    finish_step,
    loss_numbers,
    new_state,
    next_token_losses,
    next_token_stage,
    update_stage,
)

__all__ = [
    "Evidence",
    "NoThink",
    "RLPSettings",
    "Reading",
    "TrainState",
    "copies_kept",
    "evidence_stage",
    "finish_step",
    "judgement_of",
    "loss_numbers",
    "new_state",
    "next_token_losses",
    "next_token_stage",
    "no_think_stage",
    "outcome_of",
    "read_stage",
    "reference_stage",
    "rollout_stage",
    "update_stage",
    "verdict_stage",
]
