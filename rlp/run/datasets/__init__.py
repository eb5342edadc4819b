"""Where the rows of a run come from: what `data.kind` names.

text                files of documents, of pairs of prompt and response, of problems
compass             the documents of the demo, generated
<module>:<name>     a `Dataset` of the user's
"""

from rlp.run.datasets.compass import CompassDataset
from rlp.run.datasets.dataset import Dataset
from rlp.run.datasets.files import FileDataset
from rlp.runtime.lookup import find_named

DATASETS: dict[str, Dataset] = {"text": FileDataset(), "compass": CompassDataset()}


def find(kind: str) -> Dataset:
    """The dataset that `data.kind` names.

    Raises:
      UserError: there is none.
    """
    return find_named("data.kind", kind, DATASETS, Dataset, "rlp.run.datasets")
