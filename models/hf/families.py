"""All families, in the order in which an export tries them."""

from models.config import ModelConfig
from models.hf import gemma, llama, nemotron, olmo, qwen
from models.hf.family import Family
from models.hf.fields import FIXED
from models.hf.weights import Tensor, all_tensors

FAMILIES = (
    *qwen.FAMILIES,
    *llama.FAMILIES,
    *olmo.FAMILIES,
    *gemma.FAMILIES,
    *nemotron.FAMILIES,
)
BY_NAME = {family.name: family for family in FAMILIES}


def fixed(family: Family) -> frozenset[str]:
    """Return the fields of `FIXED` that apply to this family."""
    declared = {name for other in FAMILIES for name in other.defaults}
    others = declared - family.defaults.keys()
    return frozenset(FIXED.keys() - others - set(family.inert) - set(family.more))


def tensors(family: Family, model: ModelConfig) -> list[Tensor]:
    """Return every tensor of a checkpoint of this network, in the order of the layers."""
    ours, others = family.other_prefix
    return all_tensors(family.weights, model, lambda name: name.replace(ours, others, 1))
