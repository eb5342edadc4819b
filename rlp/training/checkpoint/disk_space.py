"""How large a checkpoint is, and whether the disk has room for those that a run keeps."""

import logging
import shutil
from pathlib import Path
from typing import Any

import jax

from rlp.runtime.display import readable_bytes
from rlp.training.checkpoint import folder as folders

LOGGER = logging.getLogger(__name__)


def log_size(directory: Path, items: Any, most: int) -> None:
    """Logs one line on the size of a checkpoint and the free space; a warning if that is too small.

    Args:
      directory: the folder of the checkpoints.
      items: arrays of a checkpoint, all devices together.
      most: checkpoints that are there at one time, the one that is being written included.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(items))
    free = shutil.disk_usage(directory).free
    more = max(most - len(folders.saved_steps(directory)), 1)
    taken, left = readable_bytes(size), readable_bytes(free)
    line = f"a checkpoint takes {taken}, and {left} are free in {directory}"
    if more * size <= free:
        LOGGER.info("%s", line)
        return
    LOGGER.warning(
        "%s, where the run will need %s for %d more; free some space, or lower checkpoint.keep",
        line,
        readable_bytes(more * size),
        more,
    )
