"""The functions of the stages of a training step; `rlp.engine.stages` lists them in order."""

from rlp.engine.forked_documents import ForkedDocuments
from rlp.engine.settings import RLPSettings, copies_kept
from rlp.engine.step.reading import NoThink, no_think_stage, read_stage
from rlp.engine.step.thinking import (
    Evidence,
    answer_rewards_stage,
    credit_of,
    evidence_stage,
    outcome_of,
    reference_stage,
    rollout_stage,
)
from rlp.engine.step.update import (
    TrainState,
    finish_step,
    minibatch_gradient,
    new_state,
    next_token_gradient,
    next_token_losses,
    next_token_stage,
    update_stage,
)

__all__ = [
    "Evidence",
    "ForkedDocuments",
    "NoThink",
    "RLPSettings",
    "TrainState",
    "copies_kept",
    "evidence_stage",
    "finish_step",
    "credit_of",
    "minibatch_gradient",
    "next_token_gradient",
    "new_state",
    "next_token_losses",
    "next_token_stage",
    "no_think_stage",
    "outcome_of",
    "read_stage",
    "reference_stage",
    "rollout_stage",
    "update_stage",
    "answer_rewards_stage",
]
