"""Documents from Python code as a dataset, selected by `data.kind="<module>:<name>"`."""

from typing import TYPE_CHECKING

from configs.default import Config
from configs.fields import value_of
from rlp.data.documents import Documents, document_streams
from rlp.run.datasets.dataset import Split
from rlp.run.datasets.files import FileDataset, excluded
from rlp.run.datasets.rows import document_layout, first_held_out
from rlp.runtime.errors import UserError
from rlp.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from rlp.run.tasks import Task


class DocumentsDataset(FileDataset):
    """Documents from a user's module; pairs and problems come from files."""

    def __init__(self, source: Documents) -> None:
        """Create a dataset of these documents."""
        self._source = source

    def documents(self, config: Config, tokenizer: Tokenizer, forks: int) -> Split:
        """See `Dataset`."""
        layout = document_layout(config, tokenizer, forks)
        streams = document_streams(self._source, config.data.kind, layout, excluded(config))
        return first_held_out(config, *streams)

    def _check_documents(self, config: Config, task: "Task") -> None:
        """See `FileDataset`."""
        for field in ("data.train", "data.evaluation"):
            if value := value_of(config, field):
                kind = config.data.kind
                problem = (
                    f"names files, but data.kind={kind!r} already provides documents; set only "
                    "one of them"
                )
                raise UserError.of(field, value, problem)
