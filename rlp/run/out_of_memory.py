"""Turn out-of-memory errors into one line that names the fields to lower."""

import contextlib
from collections.abc import Iterator

import jax

from configs.default import Config
from configs.fields import value_of
from rlp.runtime.errors import UserError, is_out_of_memory

# In the order in which to try them: the first ones do not change results.
NEXT_TOKEN_FIELDS = ("model.remat", "batch_size", "data.sequence_length")
THOUGHT_FIELDS = (
    "rlp.update_micro_batch",
    "rlp.max_branches_in_flight",
    "model.remat",
    "batch_size",
    "data.sequence_length",
)
SUITE_FIELDS = ("evaluation.thoughts", "rlp.thought_length")  # with evaluation.suite_think


@contextlib.contextmanager
def as_user_error(config: Config) -> Iterator[None]:
    """Turn out-of-memory errors into a UserError that names the fields to lower.

    Args:
      config: The config of the run that is built and trained in this context.

    Raises:
      UserError: If the host or a device runs out of memory.
    """
    fields = NEXT_TOKEN_FIELDS if config.objective == "next_token" else THOUGHT_FIELDS
    cures = [cure for name in fields if (cure := _cure(name, value_of(config, name)))]
    with _told(
        f"{', '.join(cures)}; `python -m launch.compile` with this config and "
        "--topology=<chips> prints the memory of each stage. The same command resumes the run; add "
        "--allow_config_change if you changed batch_size or data.sequence_length"
    ):
        yield


@contextlib.contextmanager
def in_suite(config: Config, by_likelihood: bool) -> Iterator[None]:
    """Turn out-of-memory errors while a benchmark is evaluated into a UserError.

    Args:
      config: The config of the run.
      by_likelihood: Whether options are scored; otherwise answers are generated.

    Raises:
      UserError: If the host or a device runs out of memory; names the fields of `evaluation.suite`.
    """
    evaluation, cures = config.evaluation, []
    if not by_likelihood:
        limit = evaluation.suite_max_tokens
        now = f"it is {limit}" if limit else "it is 0, the limit of each benchmark"
        cures.append(f"lower evaluation.suite_max_tokens ({now})")
    elif evaluation.suite_think:
        cures += filter(None, (_cure(name, value_of(config, name)) for name in SUITE_FIELDS))
    with _told(
        f"{', '.join([*cures, 'choose an evaluation.suite_prompt with fewer examples'])}, or leave "
        "out evaluation.suite and evaluate checkpoints of the run with launch.evaluate. The same "
        "command with --allow_config_change resumes the run before this evaluation"
    ):
        yield


@contextlib.contextmanager
def _told(cures: str) -> Iterator[None]:
    """Turn out-of-memory errors into a UserError that ends with cures."""
    try:
        yield
    except MemoryError as error:
        raise UserError(_message("the host", str(error), cures)) from error
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(_message("a device", str(error), cures)) from error


def _message(where: str, reason: str, cures: str) -> str:
    first_line = (reason.splitlines() or [""])[0][:200]
    return f"{where} is out of memory" + (f" ({first_line})" if first_line else "") + f"; {cures}"


def _cure(name: str, value: object) -> str:
    """Return what to do with a field; "" if it has its lowest value."""
    if name == "model.remat":
        return "" if value == "block" else f"set {name}='block' (it is {value!r})"
    if value == 1:
        return ""
    return f"set {name} (it is 0, no limit)" if value == 0 else f"lower {name} (it is {value})"
