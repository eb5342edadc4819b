"""Checkpoints of a run: saved asynchronously, verified before use, restored onto any mesh.

On disk, for one run:

    <workdir>/checkpoints/<step>/params/ optimizer/ baseline/    array trees, one Orbax item each
                                 reference/ counters/
                                 step/ data/ meta/ metrics/      small JSON items
                                 manifest.json                   size and CRC-32 of every file
    <workdir>/checkpoints/damaged/<step>/                        failed verification, moved aside

Reading order: `folder` (files on disk, and their verification), `store` (the checkpoints of the
run that is training), `load` (items of one checkpoint onto a mesh; parameters of another run),
`disk_space` (required and free space).
"""

from rlp.training.checkpoint.load import find_step, load_params
from rlp.training.checkpoint.store import Checkpoints

__all__ = ["Checkpoints", "find_step", "load_params"]
