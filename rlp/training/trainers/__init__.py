"""Trainers run an objective's jitted stages on a mesh, and measure time, tokens and FLOPs.

A trainer runs the stages that `rlp.engine.stages` lists. It does not depend on configs, files or
data sources; the training loop passes what it needs. All values that it copies to the host are
replicated, so that every host can read them.
"""

from rlp.training.trainers.answers import AnswerTrainer
from rlp.training.trainers.base import Clock, Trainer
from rlp.training.trainers.next_token import NextTokenTrainer
from rlp.training.trainers.thoughts import RLPTrainer

__all__ = ["AnswerTrainer", "Clock", "NextTokenTrainer", "RLPTrainer", "Trainer"]
