"""Open a run or a model in the Hugging Face format for inference or conversion.

Conversions open models on the host, and need neither an accelerator nor its memory.
"""

import copy
import dataclasses
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from configs.default import Config
from models.config import ModelConfig
from models.sharding import make_mesh, parameter_shardings
from models.transformer import Params, count_parameters, shapes
from rlp.capacity import device_memory
from rlp.engine.placement import abstract_params
from rlp.interop import init_from as starting
from rlp.run import memory_check
from rlp.run.method import TextMethod, as_user_error, build_method
from rlp.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Opened:
    """A trained model.

    Attributes:
      name: The name that it was opened by.
      config: The config of its run.
      method: Its model configuration, settings and tokenizer.
      params: Its parameters, float32, sharded over the mesh.
      mesh: The mesh that it was opened on.
      step: The step of its checkpoint; None without a checkpoint.
      files: The folder of its files in the Hugging Face format, or None.
    """

    name: str
    config: ConfigDict
    method: TextMethod
    params: Params
    mesh: Mesh
    step: int | None
    files: Path | None


def open_model(name: str, default: ConfigDict, mesh: Mesh, bos: str = "") -> Opened:
    """Open a model by any name that `init_from` accepts.

    Args:
      name: A run, with or without @step, or a model in the Hugging Face format.
      default: The config for a model that is not from a run.
      mesh: The mesh for its parameters, such as `one_device()` or `models.sharding.make_mesh()`.
      bos: Overrides `data.bos` of its config; "" keeps it.

    Raises:
      UserError: If the model does not exist, cannot be used or sharded over the mesh, or does not
        fit in memory.
    """
    start = starting.find(name)
    config = start.config
    if config is None:
        config = copy.deepcopy(default)
        config.model.update(start.model)
    config.data.bos = bos or config.data.bos
    effective = copy.deepcopy(config)
    names_file = config.data.chat_template not in ("", "none")
    if names_file and starting.same_template(config, start.files):  # use the saved copy of the file
        effective.data.chat_template = ""
    limits = device_memory.limits(mesh.local_devices)

    def check_model(model: ModelConfig, used: int, _: object) -> None:
        as_user_error(lambda: parameter_shardings(mesh, shapes(model)))
        memory_check.check_parameters(name, model, used, mesh, limits)

    method = build_method(Config.of(effective), start.files, check_model)
    params, step, _ = start.load(abstract_params(method.model, mesh))
    return Opened(name, config, method, params, mesh, step, start.files)


def one_device(device: jax.Device | None = None) -> Mesh:
    """Return a mesh of one device, by default the first JAX device."""
    return make_mesh(devices=[jax.devices()[0] if device is None else device])


def conversion_mesh() -> Mesh:
    """Return the mesh of the device on which models are converted.

    Raises:
      UserError: If JAX_PLATFORMS excludes the CPU.
    """
    try:
        return one_device(jax.devices("cpu")[0])
    except RuntimeError as error:
        raise UserError(
            "models are converted on the CPU, which JAX_PLATFORMS excludes; set "
            "JAX_PLATFORMS=<accelerator>,cpu"
        ) from error


def describe(opened: Opened) -> list[str]:
    """Return a few lines that describe a model: its architecture, tags and special tokens."""
    model, tokenizer = opened.method.model, opened.method.tokenizer
    name = lambda ids: f"token {ids[0]}" if len(ids) == 1 else f"{len(ids)} tokens {list(ids)}"
    known = lambda *ids: " ".join(f"{tokenizer.decode([x])!r} {x}" for x in ids) or "nothing"
    return [
        f"network: {count_parameters(model):,} parameters, {model.num_layers} layers of width "
        f"{model.hidden_size}, {tokenizer.vocab_size} tokens in {model.vocab_size} rows",
        f"tags: <think> is {name(tokenizer.think_open)}, </think> is {name(tokenizer.think_close)}",
        f"special tokens: BOS {known(*tokenizer.bos)}, EOS {known(tokenizer.eos)}, document "
        f"separator {known(tokenizer.separator)}",
    ]
