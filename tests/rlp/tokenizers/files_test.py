"""Files of a tokenizer are changed so that transformers does what they say."""

import json
from pathlib import Path

import pytest

from rlp.interop.huggingface import text_ids
from rlp.run.model_files import write_files
from rlp.runtime.errors import UserError
from rlp.tokenizers import files as edits
from tests.support.bpe_folder import make_folder

NAMES = ("<think>", "</think>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
NAMED = {"bos_token": "<s>", "eos_token": "</s>"}
TEXT = "the moon sees"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Byte-level BPE that puts nothing before a text."""
    folder = Path(make_folder(tmp_path_factory.mktemp("bpe"), NAMES, **NAMED))
    return {path.name: path.read_text() for path in folder.iterdir()}


def loaded(folder: Path, files):
    """The files as transformers reads them, and the id of each of the names."""
    import transformers

    write_files(folder, files)
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def ids(files) -> dict[str, int]:
    added = json.loads(files["tokenizer.json"])["added_tokens"]
    return {token["content"]: token["id"] for token in added}


def part(name: str, kind: int = 0):
    return {"SpecialToken": {"id": name, "type_id": kind}}


def template(before, after, number):
    names = {*before, *after}
    return {
        "type": "TemplateProcessing",
        "single": [
            *map(part, before),
            {"Sequence": {"id": "A", "type_id": 0}},
            *map(part, after),
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {n: {"id": n, "ids": [number[n]], "tokens": [n]} for n in names},
    }


LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
PROCESSORS = {
    "none": lambda number: None,
    "bytes": lambda number: LEVEL,
    "bos": lambda number: template(["<s>"], [], number),
    "bos and eos": lambda number: template(["<s>"], ["</s>"], number),
    "both": lambda number: {
        "type": "Sequence",
        "processors": [LEVEL, template(["<s>", "<|im_start|>"], [], number)],
    },
}


@pytest.mark.parametrize("flag", [None, False, True])
@pytest.mark.parametrize("wanted", [(), ("<s>",), ("<|im_start|>",)])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_what_is_put_before_a_text_is_what_was_asked_for(processor, wanted, flag, files, tmp_path):
    number = ids(files)
    whole = json.loads(files["tokenizer.json"]) | {"post_processor": PROCESSORS[processor](number)}
    config = json.loads(files["tokenizer_config.json"])
    if flag is not None:
        config["add_bos_token"] = flag
    given = files | {
        "tokenizer.json": json.dumps(whole),
        "tokenizer_config.json": json.dumps(config),
    }
    tokens = {name: number[name] for name in wanted}
    changed = edits.with_beginning(given, tokens)
    for name in wanted:  # add_bos_token means the bos_token
        changed = edits.with_token(changed, "bos_token", name)
    assert edits.with_beginning(changed, tokens) == changed
    write_files(tmp_path / "a", changed)
    empty, text = text_ids(tmp_path / "a", ["", TEXT])
    plain = loaded(tmp_path / "b", files)(TEXT, add_special_tokens=False)["input_ids"]
    whole = loaded(tmp_path / "c", given)(TEXT)["input_ids"]
    end = whole[-1:] if whole[-1] == number["</s>"] else []
    assert empty == [*tokens.values(), *end]
    assert text == [*tokens.values(), *plain, *end]


def test_a_beginning_that_cannot_be_changed_is_refused(files):
    odd = {"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0]}
    whole = json.loads(files["tokenizer.json"]) | {"post_processor": odd}
    with pytest.raises(UserError, match=r"post-processor \(RobertaProcessing\) is not a template"):
        edits.with_beginning(files | {"tokenizer.json": json.dumps(whole)}, {})
    with pytest.raises(UserError, match=r"the tokenizer has no tokenizer\.json"):
        edits.with_beginning({"vocab.json": "{}"}, {})


MANY = [{"name": "default", "template": "old"}, {"name": "tool_use", "template": "older"}]
HOLDS = {
    "nothing": {},
    "a file": {"chat_template.jinja": "old"},
    "the config": {"tokenizer_config.json": {"chat_template": "old"}},
    "several in the config": {"tokenizer_config.json": {"chat_template": MANY}},
    "all": {
        "chat_template.jinja": "old",
        "chat_template.json": '{"chat_template": "old"}',
        "tokenizer_config.json": {"chat_template": "older"},
    },
}


@pytest.mark.parametrize("wanted", [None, "new {{ messages[0]['content'] }}\n"])
@pytest.mark.parametrize("holds", HOLDS)
def test_the_template_is_the_only_one(holds, wanted, files, tmp_path):
    given = dict(files)
    for name, content in HOLDS[holds].items():
        if isinstance(content, dict):
            content = json.dumps(json.loads(files[name]) | content)
        given[name] = content
    found = loaded(tmp_path, edits.with_template(given, wanted))
    assert found.chat_template == wanted
    assert found.eos_token == "</s>"
    if wanted:
        said = [{"role": "user", "content": "x"}]
        assert (
            found.apply_chat_template(said, tokenize=False) == "new x"
        )  # Jinja drops the last newline


@pytest.mark.parametrize("form", ["a text", "a token", "a map", "no config"])
def test_a_role_is_given_to_another_token(form, files, tmp_path):
    given, old = (
        dict(files),
        {"__type": "AddedToken", "content": "</s>", "lstrip": False, "special": True},
    )
    config = json.loads(files["tokenizer_config.json"])
    if form == "a token":
        given["tokenizer_config.json"] = json.dumps(config | {"eos_token": old})
    if form == "a map":
        given["special_tokens_map.json"] = json.dumps({"eos_token": old, "bos_token": "<s>"})
    if form == "no config":
        del given["tokenizer_config.json"]
    assert edits.has_token(given, "<|im_end|>")
    assert not edits.has_token(given, "the")
    changed = edits.with_token(given, "eos_token", "<|im_end|>")
    found, before = loaded(tmp_path / "new", changed), loaded(tmp_path / "old", given)
    assert found.eos_token == "<|im_end|>"
    assert found.bos_token == before.bos_token
    text = f"{TEXT}<|im_end|> and</s>"
    assert found(text)["input_ids"] == before(text)["input_ids"]
    if form == "a map":
        told = json.loads(changed["special_tokens_map.json"])
        assert told == {"eos_token": "<|im_end|>", "bos_token": "<s>"}


@pytest.mark.parametrize(
    ("before", "more", "after"),
    [
        (None, [], None),
        (None, [3], 3),
        (2, [2], 2),
        (2, [3, 3], [2, 3]),
        ([2, 5], [5], [2, 5]),
        ([5, 2], [1, 2], [5, 2, 1]),
        ([2], [], [2]),
    ],
)
def test_ids_are_added_once_and_in_order(before, more, after):
    assert edits.with_ids(before, more) == after
    assert edits.ids_of(after) == list(dict.fromkeys([*edits.ids_of(before), *more]))
