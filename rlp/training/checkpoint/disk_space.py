"""The size of a checkpoint, and whether the disk has space for those that a run keeps."""

import logging
import shutil
from pathlib import Path
from typing import Any

import jax

from rlp.runtime.display import readable_bytes
from rlp.training.checkpoint import folder as folders

LOGGER = logging.getLogger(__name__)


def log_size(directory: Path, items: Any, most: int) -> None:
    """Log the size of a checkpoint and the free space, as a warning if that is too small.

    Args:
      directory: the checkpoints folder.
      items: tree of the arrays of a checkpoint, over all devices.
      most: the largest number of checkpoints at a time, including the one that is being written.
    """
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(items))
    free = shutil.disk_usage(directory).free
    more = max(most - len(folders.saved_steps(directory)), 1)
    needed, available = readable_bytes(size), readable_bytes(free)
    line = f"a checkpoint takes {needed}; {available} are free in {directory}"
    if more * size <= free:
        LOGGER.info("%s", line)
        return
    LOGGER.warning(
        "%s, but the run needs %s for %d more; free some space, or lower checkpoint.keep",
        line,
        readable_bytes(more * size),
        more,
    )
