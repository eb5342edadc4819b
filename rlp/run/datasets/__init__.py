"""The sources of training and held-out rows, selected by `data.kind`.

text             files of documents, prompt-response pairs or problems
compass          the generated documents of the demo
<module>:<name>  documents from user code (`rlp.data.documents`), or a `Dataset`
"""

from collections.abc import Iterable

from rlp.data.documents import Documents
from rlp.run.datasets.compass import CompassDataset
from rlp.run.datasets.dataset import Dataset
from rlp.run.datasets.documents import DocumentsDataset
from rlp.run.datasets.files import FileDataset
from rlp.runtime.lookup import find_named, wrong_kind

DATASETS: dict[str, Dataset] = {"text": FileDataset(), "compass": CompassDataset()}


def find(kind: str) -> Dataset:
    """Return the dataset that `data.kind` names.

    Raises:
      UserError: If it does not exist.
    """
    other = "iterable of documents, function that returns one, or rlp.data.documents.Documents"
    source = find_named("data.kind", kind, DATASETS, Dataset, "rlp.run.datasets", other=other)
    if isinstance(source, Dataset):
        return source
    if isinstance(source, Documents):
        return DocumentsDataset(source)
    if callable(source) or isinstance(source, Iterable):
        return DocumentsDataset(Documents(source))
    raise wrong_kind("data.kind", kind, f"a rlp.run.datasets.Dataset or {other}")
