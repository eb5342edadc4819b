"""Nemotron-H: Mamba-2, attention without positions, and feed-forwards, each a layer of its own."""

import math
from typing import Any

from models.config import ModelConfig
from models.hf.family import TRANSPOSED, Family
from models.hf.fields import COUNT, TEXT, TEXTS, Fields, Json, Unsupported, checked
from models.hf.local_layers import NoLocalLayers, shortest
from models.hf.weights import Depthwise, Weight

NEMOTRON_H = {
    "vocab_size": 131072,
    "hidden_size": 4096,
    "intermediate_size": 21504,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "mlp_hidden_act": "relu2",
    "layer_norm_epsilon": 1e-5,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "layers_block_type": None,
    "mamba_num_heads": 128,
    "mamba_head_dim": 64,
    "n_groups": 8,
    "ssm_state_size": 128,
    "conv_kernel": 4,
    "time_step_limit": (0.0, math.inf),
    "mamba_hidden_act": "silu",
    "use_conv_bias": True,
    "use_bias": False,
    "mamba_proj_bias": False,
    "num_nextn_predict_layers": 0,
    "residual_in_fp32": False,
}
# Names of the kinds of layers, old and new -> letters of `ModelConfig.layer_pattern`.
KINDS = {
    "mamba": "M",
    "linear_attention": "M",
    "attention": "*",
    "full_attention": "*",
    "mlp": "-",
    "moe": "E",
}
PATTERN, LISTS = "hybrid_override_pattern", ("layers_block_type", "layer_types")
# A step is never that large: a limit of at least this is none.
NO_LIMIT = 1e30


class HybridLayers(NoLocalLayers):
    """A kind for each layer: letters in `hybrid_override_pattern`, or names in one of two lists."""

    example = "M-M*"
    fields = (PATTERN, *LISTS, "num_hidden_layers")

    def count(self, f: Fields) -> int:
        return len(_letters(f))

    def read(self, f: Fields, name: str, layers: int) -> tuple[int, str]:
        if (window := f.get("sliding_window")) is not None:
            raise Unsupported(f"sliding_window={window!r} is not supported in {name}")
        return 0, shortest(_letters(f))

    def write(self, model: ModelConfig) -> Json:
        pattern = "".join(model.letters)
        if others := sorted(set(pattern) - set("M*-")):
            raise Unsupported(
                f"nemotron_h has no layers {', '.join(others)} in model.layer_pattern"
            )
        return {PATTERN: pattern}


def _letters(f: Fields) -> str:
    """Return the letters of all layers.

    Raises:
      Unsupported: If the fields contradict each other, or a kind of layer is not supported.
    """
    spelled = {}
    if f.get(PATTERN) is not None:
        spelled[PATTERN] = checked(PATTERN, f.get(PATTERN), TEXT)
    if "layer_types" in f and f.get("layer_types") is None:
        raise Unsupported("it lacks layer_types, which is null; remove the field")
    for name in LISTS:
        if f.get(name) is not None:
            kinds = checked(name, f.get(name), TEXTS)
            if unknown := sorted(set(kinds) - KINDS.keys()):
                raise Unsupported(f"{name} has layers of the kind {unknown[0]!r}")
            spelled[name] = "".join(KINDS[kind] for kind in kinds)
    if not spelled:
        raise Unsupported(f"it lacks the kinds of its layers: {PATTERN}, {' or '.join(LISTS)}")
    first, *_ = spelled.items()
    for name, letters in spelled.items():
        if letters != first[1]:
            raise Unsupported(f"{name} contradicts {first[0]}; keep one of them")
    name, letters = first
    if "E" in letters:
        raise Unsupported(f"{name} has layers of experts (E, moe), which are not supported")
    if not letters or set(letters) - set("M*-"):
        raise Unsupported(f"{name}={f.get(name)!r} is not supported; its letters are M, * and -")
    if (count := f.take("num_hidden_layers", COUNT)) not in (None, len(letters)):
        raise Unsupported(f"num_hidden_layers={count} contradicts the {len(letters)} of {name}")
    return letters


def _read_own(f: Fields, values: Json) -> Json:
    low, high = _step_limit(f.get("time_step_limit", NEMOTRON_H["time_step_limit"]))
    return {
        "mamba_heads": f.take("mamba_num_heads", COUNT),
        "mamba_head_dim": f.take("mamba_head_dim", COUNT),
        "mamba_groups": f.take("n_groups", COUNT),
        "mamba_state": f.take("ssm_state_size", COUNT),
        "mamba_taps": f.take("conv_kernel", COUNT),
        "mamba_step_min": low,
        "mamba_step_max": high,
    }


def _step_limit(value: Any) -> tuple[float, float]:
    """Return the least and the largest step, 0 for no limit, of a field `time_step_limit`.

    In JSON, transformers writes infinity as {"__float__": "Infinity"}, and others as Infinity.
    """
    numbers = []
    for x in value if isinstance(value, list | tuple) else ():
        x = float(x["__float__"]) if x == {"__float__": "Infinity"} else x
        if type(x) in (int, float):
            numbers.append(float(x))
    if len(numbers) != 2 or len(value) != 2 or not 0 <= numbers[0] < numbers[1]:
        raise Unsupported(f"time_step_limit={value!r} is not a list of two numbers in their order")
    low, high = numbers
    return low, 0.0 if high >= NO_LIMIT else high


def _write_own(model: ModelConfig) -> Json:
    return {
        "mamba_num_heads": model.mamba_heads,
        "mamba_head_dim": model.mamba_head_dim,
        "n_groups": model.mamba_groups,
        "ssm_state_size": model.mamba_state,
        "conv_kernel": model.mamba_taps,
        "time_step_limit": [model.mamba_step_min, model.mamba_step_max or NO_LIMIT],
    }


_OF_LAYER = "backbone.layers.*.mixer"
_TAPS = (Depthwise(),)
# Weights with the same name are parts of one tensor, in their order.
WEIGHTS = (
    Weight("embedding", "backbone.embeddings.weight"),
    *(
        Weight(f"blocks/mamba/{name}/kernel", f"{_OF_LAYER}.in_proj.weight", TRANSPOSED)
        for name in ("z", "x", "b", "c", "step")
    ),
    *(
        Weight(f"blocks/mamba/{name}_taps/kernel", f"{_OF_LAYER}.conv1d.weight", _TAPS)
        for name in ("x", "b", "c")
    ),
    *(
        Weight(f"blocks/mamba/{name}_taps/bias", f"{_OF_LAYER}.conv1d.bias")
        for name in ("x", "b", "c")
    ),
    Weight("blocks/mamba/step_bias/offset", f"{_OF_LAYER}.dt_bias"),
    Weight("blocks/mamba/log_rate/offset", f"{_OF_LAYER}.A_log"),
    Weight("blocks/mamba/skip/scale", f"{_OF_LAYER}.D"),
    Weight("blocks/mamba/norm/scale", f"{_OF_LAYER}.norm.weight"),
    Weight("blocks/mamba/out/kernel", f"{_OF_LAYER}.out_proj.weight", TRANSPOSED),
    *(
        Weight(f"blocks/attention/{name}/kernel", f"{_OF_LAYER}.{name}_proj.weight", TRANSPOSED)
        for name in ("q", "k", "v", "o")
    ),
    *(
        Weight(f"blocks/plain_ffn/{name}/kernel", f"{_OF_LAYER}.{name}_proj.weight", TRANSPOSED)
        for name in ("up", "down")
    ),
    *(
        Weight(f"blocks/{name}_norm/scale", "backbone.layers.*.norm.weight")
        for name in ("mamba", "attention", "plain_ffn")
    ),
    Weight("norm/scale", "backbone.norm_f.weight"),
    Weight("head/kernel", "lm_head.weight", TRANSPOSED),
)

FAMILIES = (
    Family(
        "nemotron_h",
        "NemotronHForCausalLM",
        {"qk_norm": "none"},
        WEIGHTS,
        NEMOTRON_H,
        nullable=("layers_block_type",),
        layers=HybridLayers(),
        read_own=_read_own,
        write_own=_write_own,
        epsilon_field="layer_norm_epsilon",
        rotary=False,
        aliases={
            "mamba_n_groups": "n_groups",
            "mamba_d_conv": "conv_kernel",
            "mamba_conv_bias": "use_conv_bias",
            "mamba_dt_limit": "time_step_limit",
        },
        same={
            "attention_head_dim": "head_dim",
            "rms_norm_eps": "layer_norm_epsilon",
            "norm_eps": "layer_norm_epsilon",
        },
        more=HybridLayers.fields,
        # How parameters are initialized or computed, layers of experts, and what is predicted by
        # extra layers; rotary positions are in some files, but no code reads them.
        inert=(
            *("expand", "mamba_expand", "time_step_min", "time_step_max", "time_step_floor"),
            *("time_step_rank", "mamba_dt_min", "mamba_dt_max", "mamba_dt_init_floor"),
            *("rescale_prenorm_residual", "num_logits_to_keep", "use_mamba_kernels"),
            *("mamba_ssm_cache_dtype", "chunk_size", "mamba_chunk_size"),
            *("n_routed_experts", "num_local_experts", "n_shared_experts", "moe_intermediate_size"),
            *("moe_shared_expert_intermediate_size", "moe_latent_size", "num_experts_per_tok"),
            *("moe_shared_expert_overlap", "routed_scaling_factor", "n_group", "topk_group"),
            *("norm_topk_prob", "output_router_logits"),
            *("mtp_layers_block_type", "mtp_hybrid_override_pattern"),
            *("rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor"),
            *("original_max_position_embeddings",),
        ),
        other_prefix=("backbone.", "model."),
    ),
)
