"""Turn out-of-memory errors into one line that names the fields to lower."""

import contextlib
from collections.abc import Iterator

import jax

from configs.default import Config
from configs.fields import value_of
from rlp.runtime.errors import UserError

# In the order in which to try them: the first ones do not change results.
NEXT_TOKEN_FIELDS = ("model.remat", "batch_size", "data.sequence_length")
THOUGHT_FIELDS = (
    "rlp.update_micro_batch",
    "rlp.max_branches_in_flight",
    "model.remat",
    "batch_size",
)


@contextlib.contextmanager
def as_user_error(config: Config) -> Iterator[None]:
    """Turn out-of-memory errors into a UserError that names the fields to lower.

    Args:
      config: The config of the run that is built and trained in this context.

    Raises:
      UserError: If the host or a device runs out of memory.
    """
    try:
        yield
    except MemoryError as error:
        raise UserError(_message(config, "the host", str(error))) from error
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(_message(config, "a device", str(error))) from error


def _message(config: Config, where: str, reason: str) -> str:
    first_line = (reason.splitlines() or [""])[0][:200]
    fields = NEXT_TOKEN_FIELDS if config.objective == "next_token" else THOUGHT_FIELDS
    cures = [_cure(name, value_of(config, name)) for name in fields]
    return (
        f"{where} is out of memory" + (f" ({first_line})" if first_line else "") + "; "
        f"{', '.join(cures[:-1])} or {cures[-1]}; `python -m launch.compile` with this config and "
        "--topology=<chips> prints the memory of each stage; the same command resumes the run"
    )


def _cure(name: str, value: object) -> str:
    if name == "model.remat":
        return f"set {name}='block' (it is {value!r})"
    return f"set {name} (it is 0, no limit)" if value == 0 else f"lower {name} (it is {value})"
