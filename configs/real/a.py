"""Setting A: sums of four or five numbers. `make real` runs it; recipe.py in this folder has the arms.

    python -m launch.pipeline --config=configs/real/a.py:runs/real/a-0 --workdir=runs/real/a-0/chain
"""

from ml_collections import ConfigDict

from configs.real import recipe
from configs.real.texts import Sizes

SETTING = recipe.Setting(
    sizes=Sizes(warm=8192, rl=2048, development=256, test=1024),
    document=48,
    thought=56,  # four running totals of three digits
    answer=6,  # a space, three digits, the full stop, the end
    warm_row=256,  # about 3.7 documents
    warm_steps=280,
    rlp_steps=32,
    rlvr_steps=8,
)


def get_config(arguments: str = "runs/real/a-0") -> ConfigDict:
    """Return the experiment; see `recipe.chain`."""
    return recipe.chain(SETTING, arguments)
