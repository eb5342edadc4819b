"""Datasets defined in user code, named by the config."""

import pytest

from rlp.data.compass import TOKENIZER, CompassStream
from rlp.data.documents import Documents
from rlp.data.fingerprint import fingerprint
from rlp.run import assembly
from rlp.run.datasets.dataset import Dataset, Split
from rlp.runtime.errors import UserError
from tests.support import runs


class Walks(Dataset):
    """A dataset of documents, without pairs and problems."""

    def tokenizer(self, config, files):
        return TOKENIZER

    def documents(self, config, tokenizer, forks):
        length = config.data.sequence_length
        train, held = CompassStream(7, length), CompassStream(8, length, held_out=True)
        return Split(train, held.batch(0, config.evaluation.documents), held.fingerprint())


WALKS = Walks()
NAMED = runs.COMPASS | {"data.kind": f"{__name__}:WALKS", "batch_size": 8}


@pytest.mark.parametrize("objective", ["next_token", "rlp"])
def test_documents_come_from_the_dataset_that_the_config_names(objective):
    config = runs.config(NAMED, {"objective": objective})
    run = assembly.build(config)
    assert run.dataset is WALKS
    train, held_out = assembly.read_data(config, run)
    assert runs.bits(train.batch(3, 2)) == runs.bits(CompassStream(7, 22).batch(3, 2))
    assert held_out.pairs is None
    assert len(held_out.documents.tokens) == config.evaluation.documents


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.sft.share": 1.0}, "does not have prompt-response pairs; set data.sft.share to 0"),
        ({"data.problems.evaluation": "a.jsonl"}, "does not have problems; set data.kind"),
    ],
)
def test_what_the_dataset_does_not_have_is_named(changes, message):
    config = runs.config(NAMED, changes)
    run = assembly.build(config)
    with pytest.raises(UserError, match=message) as error:
        assembly.read_data(config, run)
    assert error.value.field == "data.kind"


def test_an_unknown_dataset_is_refused():
    with pytest.raises(UserError, match="data.kind='books' is unknown; use one of text, compass"):
        assembly.build(runs.config(runs.COMPASS, {"data.kind": "books"}))


TEXTS = [f"text number {n}" for n in range(16)]
SOURCE = Documents(TEXTS[:12], held_out=TEXTS[12:])
NUMBER = 3


def texts():
    yield from TEXTS


def named(name):
    return runs.TEXT | {"data.kind": f"{__name__}:{name}", "batch_size": 8}


@pytest.mark.parametrize("name", ["TEXTS", "texts", "SOURCE"])
def test_documents_may_be_given_by_code(name):
    config = runs.config(named(name))
    train, held_out = assembly.read_data(config, assembly.build(config))
    assert train.records_per_epoch == 12
    assert len(held_out.documents.tokens) == 4
    assert {field.partition(",")[0] for field in fingerprint(train, held_out)} == {"data.kind"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (named("TEXTS") | {"data.train": "a.txt"}, "data.train='a.txt' names files, but data.kind"),
        (named("TEXTS") | {"data.evaluation": "a.txt"}, "data.evaluation='a.txt' names files"),
        (
            named("TEXTS") | {"objective": "rlp", "rlp.positions": "given"},
            "rlp.positions='given' needs data.fork_marker",
        ),
        (named("NUMBER"), "NUMBER' is not a rlp.run.datasets.Dataset or iterable of documents"),
        (named("NOTHING"), "NOTHING' cannot be imported"),
    ],
)
def test_what_goes_with_no_documents_of_code_is_refused(fields, message):
    with pytest.raises(UserError) as caught:
        assembly.build(runs.config(fields))
    assert message in str(caught.value)
