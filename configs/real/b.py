"""Setting B: the problems of GSM8K. `make real SETTING=b` runs it; recipe.py in this folder has the arms.

    python -m launch.pipeline --config=configs/real/b.py:runs/real/b-0 --workdir=runs/real/b-0/chain
"""

from ml_collections import ConfigDict

from configs.real import recipe
from configs.real.texts import Sizes

SETTING = recipe.Setting(
    sizes=Sizes(warm=2400, rl=1024, development=256, test=1024),  # 612 of the test problems fit
    document=192,
    thought=80,
    answer=8,
    warm_row=512,  # about five documents
    warm_steps=90,
    rlp_steps=24,
    rlvr_steps=8,
)


def get_config(arguments: str = "runs/real/b-0") -> ConfigDict:
    """Return the experiment; see `recipe.chain`."""
    return recipe.chain(SETTING, arguments)
