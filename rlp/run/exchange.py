"""Models in the Hugging Face format become the folder of a run, and runs become such models.

    open_model      a run or such a model, ready to compute with
    import_model    such a model as checkpoint 0 of a run, which others start from
    export_model    a run, or such a model, as a folder that transformers and vLLM load

All of it happens on the host: no accelerator is needed, nor is its memory.
"""

import copy
import dataclasses
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from models import hf
from models.sharding import make_mesh
from models.transformer import Params, count_parameters
from rlp.capacity import device_memory
from rlp.data.compass import CompassTokenizer
from rlp.engine.placement import abstract_params
from rlp.interop import huggingface
from rlp.interop import init_from as starting
from rlp.interop.init_from import FILES
from rlp.run import memory_check
from rlp.run.method import TextMethod, build_method
from rlp.run.model_files import check_tokenizer, config_ids, eos_ids, generation_config, small_files
from rlp.runtime.atomic_files import refuse_existing, unfinished
from rlp.runtime.config_json import save_config
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import add_tokens
from rlp.tokenizers.turns import end_of_turn
from rlp.training.checkpoint import Checkpoints
from rlp.training.metrics import progress

MEAN = "mean"  # what rows of new tokens begin with, if not like those of another
LIBRARIES = ("jax", "flax", "orbax-checkpoint", "safetensors", "transformers")


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
    method = build_method(asked, start.files, look)
    params, step, _ = start.load(abstract_params(method.model, make_mesh(devices=[device])))
    return Opened(name, config, method, params, step, start.files)


def host() -> jax.Device:
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


def import_model(
    name: str, out: Path, default: ConfigDict, *, new_tokens: Sequence[str] = (), like: str = MEAN
) -> Opened:
    """Writes a model in the Hugging Face format as a run of no steps.

    Args:
      name: its folder, or its name on the hub.
      out: the folder to make; it appears whole or not at all.
      default: its config, but for the network.
      new_tokens: special tokens to add to its tokenizer.
      like: what their rows of the embedding (and of the logits' matrix) begin as: "mean" of the
        rows of all tokens, or the row of the token of this name.

    Returns:
      What opening `out` gives, under the name that the model came by.

    Raises:
      UserError: `out` exists, or the model cannot be used.
    """
    refuse_existing(out)
    start = starting.find(name)
    if start.config is not None or start.files is None:
        raise UserError(f"{name} is the folder of a run, no model in the Hugging Face format")
    try:
        with unfinished(out) as folder:
            starting.copy_files(start.files, folder)
            opened = open_model(name, default, host())
            # Refuses small files that an export could not be made of.
            small_files(opened.method, folder / FILES, True, opened.config.data)
            if new_tokens:
                opened = _with_tokens(opened, folder / FILES, new_tokens, like)
            save_config(opened.config, folder / "config.json")
            with Checkpoints(folder / starting.CHECKPOINTS, keep=1) as checkpoints:
                checkpoints.save(0, {"params": opened.params})
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error}); free it or name another") from error
    method = build_method(opened.config, out / FILES)  # what it was made from may go, or has gone
    return dataclasses.replace(opened, method=method, step=0, files=out / FILES)


def _with_tokens(opened: Opened, files: Path, names: Sequence[str], like: str) -> Opened:
    """The model with special tokens added, to its tokenizer in `files` too."""
    tokenizer, before = opened.method.tokenizer, opened.method.model
    used = tokenizer.vocab_size
    source: Any = slice(0, used)
    if like != MEAN:
        ids = tokenizer.encode(like)
        if len(ids) != 1 or tokenizer.decode(ids) != like:  # a word may have become "unknown"
            raise UserError(f"{like!r} is not one token of the tokenizer; name one, or {MEAN!r}")
        source = slice(ids[0], ids[0] + 1)
    places = add_tokens(files, names)
    size = before.vocab_size
    if max(places) >= size:
        size = -(-(max(places) + 1) // 64) * 64
    rows = jnp.asarray(places)

    def grown(x: jax.Array, axis: int) -> jax.Array:
        """With the new rows, on `axis`."""
        x = jnp.moveaxis(x, axis, 0)
        begin = x[source].mean(axis=0, keepdims=True)
        x = jnp.pad(x, [(0, size - before.vocab_size)] + [(0, 0)] * (x.ndim - 1))
        return jnp.moveaxis(
            x.at[rows].set(jnp.broadcast_to(begin, (len(places), *x.shape[1:]))), 0, axis
        )

    params = dict(opened.params)
    params["embedding"] = grown(params["embedding"], 0)
    if "head" in params:
        params["head"] = {"kernel": grown(params["head"]["kernel"], 1)}
    opened.config.model.vocab_size = size
    method = build_method(opened.config, files)
    return dataclasses.replace(opened, params=params, method=method, files=files)


def export_model(opened: Opened, out: Path, dtype: str, shard_bytes: int) -> hf.Family:
    """Writes a model in the Hugging Face format, with its tokenizer, whole or not at all.

    Args:
      opened: the model.
      out: the folder to make.
      dtype: of the weights.
      shard_bytes: most bytes of weights in a file.

    Raises:
      UserError: no family of models has such a network, or `out` exists or cannot be written.
    """
    files = released(opened)
    family, config = _their_config(opened, dtype, files)
    check_tokenizer(opened.name, opened.method.tokenizer, files, config)
    tensors = hf.tensors(family, opened.method.model)
    record = {
        "checkpoint": opened.name,
        "step": opened.step,
        "parameters": count_parameters(opened.method.model),
        "config": opened.config.to_dict(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }

    def watch(written: Sequence[hf.Tensor]) -> Iterator[hf.Tensor]:
        with progress(len(written), 0, f"writing {out.name}", "tensor") as bar:
            for tensor in written:
                yield tensor
                bar.update(1)

    huggingface.write_folder(
        out,
        opened.params,
        tensors,
        config,
        dtype=dtype,
        files=files,
        record=record,
        shard_bytes=shard_bytes,
        watch=watch,
    )
    return family


def released(opened: Opened) -> dict[str, Path | str]:
    """The small files of the export: name to content, or to a file to copy.

    Raises:
      UserError: the tokenizer cannot be made to put `data.bos` before a text.
    """
    known = starting.same_tokenizer(opened.config, opened.files)
    return small_files(opened.method, opened.files, known, opened.config.data)


def _their_config(
    opened: Opened, dtype: str, files: Mapping[str, Path | str]
) -> tuple[hf.Family, hf.Json]:
    """Family and config.json: the one that the model came with, where it still tells the truth."""
    model = opened.method.model
    given = {}
    if opened.files and (opened.files / huggingface.CONFIG).is_file():
        given = huggingface.read_config(opened.files)
    try:
        family = hf.family_of(given) if given else hf.family_for(model)
        fields = hf.replaced(given, model) if given else hf.write_config(family, model)
    except hf.Unsupported as error:
        raise UserError(f"{opened.name} cannot be exported: {error}") from error
    if not given:
        fields["max_position_embeddings"] = _longest(opened)
    known = starting.same_tokenizer(opened.config, opened.files)
    fields |= config_ids(opened.method, given, known, files, opened.config.data)
    fields.pop("dtype", None)
    return family, fields | {"torch_dtype": dtype}  # old readers know this name, new ones both


def _longest(opened: Opened) -> int:
    """Tokens of the longest text that the run has met: prompt, document, thought, target, tags."""
    rlp, words = opened.method.settings, opened.method.vocabulary
    tags = len(words.think_open) + len(words.think_close)
    document = opened.config.data.sequence_length
    return len(rlp.prompt) + document + tags + rlp.thought_length + rlp.horizon


def rounded(params: Params, dtype: str) -> Params:
    """The parameters as they are read back from an export."""
    return jax.tree.map(lambda x: x.astype(dtype).astype(jnp.float32), params)


def ends(opened: Opened, chat: bool = False) -> tuple[int, ...]:
    """The ids after which what the model writes is over: those at which `generate` stops with its
    export, those that end a text or a document, and in a chat the one that ends a turn."""
    tokenizer: Any = opened.method.tokenizer
    found = [*exported_ends(opened), tokenizer.eos, tokenizer.separator]
    if chat and (end := end_of_turn(tokenizer, opened.method.template)) is not None:
        found.append(end)
    return tuple(dict.fromkeys(found))


def exported_ends(opened: Opened) -> tuple[int, ...]:
    """The ids at which `generate` stops with the export of a model."""
    known = starting.same_tokenizer(opened.config, opened.files)
    return eos_ids(generation_config(opened.method, opened.files, known, opened.config.data))


def chat_of(opened: Opened, text: str, system: str = "") -> str:
    """What the model's chat template makes of a message of the user, with what asks for an answer.

    Args:
      opened: the model.
      text: of the user.
      system: message before it; "" for none.

    Raises:
      UserError: there is no template, or it fails.
    """
    tokenizer, template = opened.method.tokenizer, opened.method.template
    if template is None or isinstance(tokenizer, CompassTokenizer):
        raise UserError(
            f"{opened.name} has no chat template; leave out --chat, or name a model that has one "
            "(a run trained with data.chat_template=<Jinja file> keeps it)"
        )
    return tokenizer.chat(messages(text, system), template, True)


def messages(text: str, system: str = "") -> list[dict[str, str]]:
    """A chat of one message of the user, after that of the system where there is one."""
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": text}]


def prompt_of(opened: Opened, text: str) -> list[int]:
    """Ids of a text, behind what stands before every text.

    Raises:
      UserError: there is nothing to begin with, or it holds what the tokenizer cannot write.
    """
    return prompt_and_target(opened, text, "")[0]


def prompt_and_target(opened: Opened, prompt: str, target: str) -> tuple[list[int], list[int]]:
    """Ids of a text, behind what stands before every text, and of another that follows it.

    Together they have the ids of the whole text. A token across the place between them is the first
    of the target.

    Raises:
      UserError: there is nothing to begin with, or it holds what the tokenizer cannot write.
    """
    ids, rest = split(opened, prompt, target)
    ids = [*opened.method.tokenizer.bos, *ids]
    if not ids:
        raise UserError(
            "the prompt is empty, and the tokenizer puts nothing before a text; give a --prompt"
        )
    return ids, rest


def split(opened: Opened, prompt: str, target: str) -> tuple[list[int], list[int]]:
    """Ids of a text and of another that follows it, with nothing before them. Together they have
    the ids of the whole text; a token across the place between them is the first of the target."""
    tokenizer = opened.method.tokenizer
    alone, both = tokenizer.encode(prompt), tokenizer.encode(prompt + target)
    pairs = zip(alone, both, strict=False)
    shared = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(alone), len(both)))
    return both[:shared], both[shared:]


def described(opened: Opened) -> list[str]:
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
