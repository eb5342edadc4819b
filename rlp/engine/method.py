"""How thoughts are sampled and scored: a network, the numbers of the method, its tokens."""

import dataclasses

from models.config import ModelConfig
from rlp.engine.branches import Vocabulary
from rlp.engine.settings import RLPSettings


@dataclasses.dataclass(frozen=True)
class Method:
    """How thoughts, or responses to problems, are sampled and scored with a network.

    Attributes:
      model: shape of the network.
      settings: numbers of the method.
      vocabulary: tags and banned ids.
    """

    model: ModelConfig
    settings: RLPSettings
    vocabulary: Vocabulary
