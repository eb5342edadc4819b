"""Where the rows of a run come from: what `data.kind` names.

text        files of documents, of pairs of prompt and response, of problems
compass     the documents of the demo, generated
<module>:<name>  documents that code of the user's gives (`rlp.data.documents`), or a `Dataset`
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
    """The dataset that `data.kind` names.

    Raises:
      UserError: there is none.
    """
    other = "iterable of documents, function that gives them, or rlp.data.documents.Documents"
    found = find_named("data.kind", kind, DATASETS, Dataset, "rlp.run.datasets", other=other)
    if isinstance(found, Dataset):
        return found
    if isinstance(found, Documents):
        return DocumentsDataset(found)
    if callable(found) or isinstance(found, Iterable):
        return DocumentsDataset(Documents(found))
    raise wrong_kind("data.kind", kind, f"a rlp.run.datasets.Dataset or {other}")
