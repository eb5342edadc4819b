"""All that sampling and scoring of thoughts depend on: network, settings, special tokens."""

import dataclasses

from models.config import ModelConfig
from rlp.engine.branches import Vocabulary
from rlp.engine.settings import RLPSettings


@dataclasses.dataclass(frozen=True)
class Method:
    """The network, settings and vocabulary with which thoughts or responses are sampled and scored.

    Attributes:
      model: config of the network.
      settings: of the method.
      vocabulary: tags and banned ids.
    """

    model: ModelConfig
    settings: RLPSettings
    vocabulary: Vocabulary
