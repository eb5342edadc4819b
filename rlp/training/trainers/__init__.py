"""Trainers: take steps of an objective on a mesh, and say what each step cost.

A trainer runs the stages that `rlp.engine.stages` lists. It does not know configs, files or data
sources; the loop gives it what it needs. What it brings to the host is the same on every device, so
that every host can read it.
"""

from rlp.training.trainers.answers import AnswerTrainer
from rlp.training.trainers.base import Clock, Trainer
from rlp.training.trainers.next_token import NextTokenTrainer
from rlp.training.trainers.thoughts import RLPTrainer

__all__ = ["AnswerTrainer", "Clock", "NextTokenTrainer", "RLPTrainer", "Trainer"]
