"""Rotary position embeddings in config.json: in the old form (rope_theta, rope_scaling), in the new
form (rope_parameters), or in both forms, which must then agree."""

from typing import Any

from models.hf.family import Family
from models.hf.fields import COUNT, NUMBER, OBJECT, TEXT, Fields, Json, Unsupported, checked
from models.rope import Rope

# rope_type -> its parameters: name there -> field of `Rope`.
ROPES: dict[str, dict[str, str]] = {
    "default": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "original_max_position_embeddings": "original_length",
        "low_freq_factor": "low_frequency_factor",
        "high_freq_factor": "high_frequency_factor",
    },
    "yarn": {
        "factor": "factor",
        "original_max_position_embeddings": "original_length",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "attention_factor": "attention_factor",
    },
}
OPTIONAL = frozenset(("beta_fast", "beta_slow", "attention_factor"))
# Parameters that some scaling of transformers reads -> the value without effect. If the rope_type
# in ROPES does not have the parameter, other values are errors.
NEUTRAL: dict[str, Any] = {
    "attention_factor": 1.0,
    "beta_fast": None,
    "beta_slow": None,
    "factor": 1.0,
    "high_freq_factor": None,
    "long_factor": None,
    "low_freq_factor": None,
    "mrope_section": None,
    "mscale": None,
    "mscale_all_dim": None,
    "partial_rotary_factor": 1.0,
    "short_factor": None,
    "truncate": True,
}
PARTIAL = "partial_rotary_factor"
# The other parameters: the type of scaling, the base, and the original context length.
ORIGINAL = "original_max_position_embeddings"
OTHERS = frozenset((ORIGINAL, "rope_theta", "rope_type", "type"))
# The kinds of layers that can have separate parameters in `rope_parameters`.
GLOBAL, LOCAL = "full_attention", "sliding_attention"


def read_rope(family: Family, f: Fields) -> Rope:
    """Return the rotary position embedding of a config.json.

    Raises:
      Unsupported: If its kind is not supported, or its two forms contradict each other.
    """
    scaling, new = (f.take(name, OBJECT) or {} for name in ("rope_scaling", "rope_parameters"))
    if family.local_rope and "rope_type" not in scaling and _kind(scaling) != "default":
        raise Unsupported(
            f"rope_scaling={scaling!r} is not supported: for {family.name}, transformers reads "
            "rope_type, not type; rename the key"
        )
    # Null is an error only if the value is used, which it may not be.
    theta = f.get("rope_theta", family.default_theta)
    local = f.get(family.local_theta_field, family.default_local_theta)
    forms = []
    if new and family.local_rope:
        if unknown := set(new) - {GLOBAL, LOCAL}:
            raise Unsupported(
                f"rope_parameters={new!r} may contain only {GLOBAL} and {LOCAL}, not "
                f"{', '.join(sorted(unknown))}"
            )
        wide, near = (_object(new.get(kind), f"rope_parameters.{kind}") for kind in (GLOBAL, LOCAL))
        if _values(f, family, near):
            raise Unsupported(f"rope_type={_kind(near)!r} of {LOCAL} is not supported")
        forms.append(_rope(f, family, wide, theta, near.get("rope_theta", local)))
    elif new:
        forms.append(_rope(f, family, new, theta, local))
    if not new or scaling or f.get("rope_theta") is not None:
        shared = {name: x for name, x in new.items() if name == PARTIAL}  # it has no old form
        forms.append(_rope(f, family, shared | scaling, theta, local))
    if forms[0] != forms[-1]:
        raise Unsupported("rope_parameters contradicts rope_theta and rope_scaling; keep one form")
    return forms[0]


def unread_parameters(family: Family, config: Json) -> list[str]:
    """Return the dotted names of rotary parameters of a config.json that have no effect."""
    known = NEUTRAL.keys() | OTHERS | set(family.inert_rope)
    names = []
    for field in ("rope_scaling", "rope_parameters"):
        value = config.get(field) or {}
        nested = {f"{field}.{kind}": value[kind] or {} for kind in (GLOBAL, LOCAL) if kind in value}
        for prefix, parameters in (nested or {field: value}).items():
            names += [f"{prefix}.{x}" for x in parameters.keys() - known]
    return names


def _object(value: Any, name: str) -> Json:
    """Return a nested object of parameters; null counts as empty."""
    return checked(name, {} if value is None else value, OBJECT)


def _rope(f: Fields, family: Family, parameters: Json, theta: Any, local: Any) -> Rope:
    theta = parameters.get("rope_theta", theta)
    local_name = family.local_theta_field or f"rope_theta of {LOCAL}"
    for name, base in (("rope_theta", theta), (local_name, local))[: 1 + family.local_rope]:
        if base is None:
            raise Unsupported(f"it lacks {name}, which is null; set a number, or remove the field")
        checked(name, base, NUMBER)
    try:
        values = _values(f, family, parameters)
        return Rope(theta=float(theta), local_theta=float(local), **values)
    except ValueError as error:
        raise Unsupported(str(error)) from error


def _kind(parameters: Json) -> str:
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    return checked("rope_type", kind, TEXT)


def _values(f: Fields, family: Family, parameters: Json) -> Json:
    """Return the fields of `Rope` for the scaling of frequencies; empty if there is none."""
    kind = _kind(parameters)
    if kind not in ROPES:
        raise Unsupported(f"rope_type={kind!r} is not supported; {', '.join(ROPES)} are")
    names, partial = ROPES[kind], {}
    if family.default_partial_rotary is not None:
        share = f.get(PARTIAL, family.default_partial_rotary)
        share = checked(PARTIAL, parameters.get(PARTIAL, 1.0 if share is None else share), NUMBER)
        partial = {PARTIAL: float(share)}
    ignored = {*family.inert_rope, *partial}
    for name, value in sorted(parameters.items()):
        if name in ignored:
            continue
        foreign = name in NEUTRAL and name not in names
        nested = type(value) is dict or name in (GLOBAL, LOCAL)
        if nested or (foreign and value not in (None, NEUTRAL[name])):
            raise Unsupported(f"rope_type={kind!r} with {name}={value!r} is not supported")
    theirs = {name: parameters[name] for name in names if name in parameters}
    length = f.take("max_position_embeddings", COUNT)
    if ORIGINAL in names:
        original = theirs.setdefault(ORIGINAL, length)
        checked(ORIGINAL, original, COUNT)
        # At the top level, it overrides the parameters, except in families with separate parameters
        # for local layers, which ignore it.
        if ORIGINAL in f and not family.local_rope:
            theirs[ORIGINAL] = original = checked(ORIGINAL, f.get(ORIGINAL), COUNT)
        if kind == "yarn" and theirs.get("factor", length) is None:
            theirs["factor"] = length / original
    theirs = {name: x for name, x in theirs.items() if x is not None}
    if missing := sorted(set(names) - OPTIONAL - theirs.keys()):
        raise Unsupported(f"rope_type={kind!r} lacks {', '.join(missing)}")
    values: Json = {
        ours: float(checked(x, theirs[x], NUMBER)) for x, ours in names.items() if x in theirs
    }
    if "original_length" in values:
        values["original_length"] = int(values["original_length"])
    return values | partial | ({"scaling": kind} if kind != "default" else {})


def write_rope(family: Family, rope: Rope) -> Json:
    """Return the fields of config.json, in the old form if it suffices; new readers accept both.

    Families whose heads are rotated in part are younger than the new form.
    """
    scaling: Json = {}
    if rope.scaling != "none":
        names = ROPES[rope.scaling]
        scaling = {"rope_type": rope.scaling} | {
            name: getattr(rope, ours) for name, ours in names.items()
        }
        if not scaling.get("attention_factor", True):
            del scaling["attention_factor"]
    if family.default_partial_rotary is not None:
        own = {"rope_theta": rope.theta, PARTIAL: rope.partial_rotary_factor}
        return {"rope_parameters": {"rope_type": "default"} | scaling | own}
    fields: Json = {"rope_theta": rope.theta, "rope_scaling": scaling or None}
    if not family.local_rope:
        return fields
    near = rope.local_theta or rope.theta
    if family.local_theta_field:
        return fields | {family.local_theta_field: near}
    if rope.theta == near == family.default_theta:
        return fields
    # The old form cannot express this: new readers would give local layers the default theta.
    wide = scaling | {"rope_theta": rope.theta}
    local = {"rope_type": "default", "rope_theta": near}
    types = {GLOBAL: {"rope_type": "default"} | wide, LOCAL: local}
    return {"rope_parameters": types}
