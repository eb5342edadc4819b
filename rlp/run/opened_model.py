"""A run, or a model in the Hugging Face format, opened: ready to compute with.

Models are opened on the host to convert them: no accelerator is needed, nor is its memory.
"""

import copy
import dataclasses
from pathlib import Path

import jax
from ml_collections import ConfigDict

from configs.default import Config
from models.sharding import make_mesh
from models.transformer import Params, count_parameters
from rlp.capacity import device_memory
from rlp.engine.placement import abstract_params
from rlp.interop import init_from as starting
from rlp.run import memory_check
from rlp.run.method import TextMethod, build_method
from rlp.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Opened:
    """A trained network.

    Attributes:
      name: as it was given.
      config: of its run.
      method: what it takes to compute with it.
      params: float32, on one device.
      step: of its checkpoint; None where there is none.
      files: folder of its files in the Hugging Face format, or None.
    """

    name: str
    config: ConfigDict
    method: TextMethod
    params: Params
    step: int | None
    files: Path | None


def open_model(name: str, default: ConfigDict, device: jax.Device, bos: str = "") -> Opened:
    """Opens whatever `init_from` can name.

    Args:
      name: a run, with or without @step, or a model in the Hugging Face format.
      default: the config of a model that is no run's.
      device: where its parameters are to be.
      bos: `data.bos`, in place of what its config has; "" to leave that.

    Raises:
      UserError: there is no such thing, or it cannot be used.
    """
    start = starting.find(name)
    config = start.config
    if config is None:
        config = copy.deepcopy(default)
        config.model.update(start.model)
    config.data.bos = bos or config.data.bos
    asked = copy.deepcopy(config)
    named = config.data.chat_template not in ("", "none")
    if named and starting.same_template(config, start.files):  # that file may have changed
        asked.data.chat_template = ""
    limits = device_memory.limits([device])
    look = lambda model, used, _: memory_check.check_parameters(name, model, used, limits)
    method = build_method(Config.of(asked), start.files, look)
    params, step, _ = start.load(abstract_params(method.model, make_mesh(devices=[device])))
    return Opened(name, config, method, params, step, start.files)


def conversion_device() -> jax.Device:
    """Where models are converted.

    Raises:
      UserError: JAX was told to leave it out.
    """
    try:
        return jax.devices("cpu")[0]
    except RuntimeError as error:
        raise UserError(
            "models are converted on the CPU, which JAX_PLATFORMS leaves out; add it: "
            "JAX_PLATFORMS=<accelerator>,cpu"
        ) from error


def describe(opened: Opened) -> list[str]:
    """A few lines on a model: its network, and what its tokenizer makes of the tags."""
    model, tokenizer = opened.method.model, opened.method.tokenizer
    name = lambda ids: f"token {ids[0]}" if len(ids) == 1 else f"{len(ids)} tokens {list(ids)}"
    known = lambda *ids: " ".join(f"{tokenizer.decode([x])!r} {x}" for x in ids) or "nothing"
    return [
        f"network: {count_parameters(model):,} parameters, {model.num_layers} layers of width "
        f"{model.hidden_size}, {tokenizer.vocab_size} tokens in {model.vocab_size} rows",
        f"tags: <think> is {name(tokenizer.think_open)}, </think> is {name(tokenizer.think_close)}",
        f"texts: before each {known(*tokenizer.bos)}, after each document "
        f"{known(tokenizer.separator)}; a text ends with {known(tokenizer.eos)}",
    ]
