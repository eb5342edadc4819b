"""Edited files of a tokenizer have the intended effect when transformers loads them."""

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
    """Files of a byte-level BPE tokenizer that puts nothing before a text."""
    folder = Path(make_folder(tmp_path_factory.mktemp("bpe"), NAMES, **NAMED))
    return {path.name: path.read_text() for path in folder.iterdir()}


def loaded(folder: Path, files):
    """Write the files to a folder and load them with transformers."""
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
@pytest.mark.parametrize("names", [(), ("<s>",), ("<|im_start|>",)])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_tokenizer_puts_exactly_the_leading_tokens_before_a_text(
    processor, names, flag, files, tmp_path
):
    number = ids(files)
    content = json.loads(files["tokenizer.json"]) | {
        "post_processor": PROCESSORS[processor](number)
    }
    config = json.loads(files["tokenizer_config.json"])
    if flag is not None:
        config["add_bos_token"] = flag
    before = files | {
        "tokenizer.json": json.dumps(content),
        "tokenizer_config.json": json.dumps(config),
    }
    tokens = {name: number[name] for name in names}
    changed = edits.with_leading_tokens(before, tokens)
    for name in names:  # add_bos_token refers to the bos_token
        changed = edits.with_token(changed, "bos_token", name)
    assert edits.with_leading_tokens(changed, tokens) == changed
    write_files(tmp_path / "a", changed)
    empty, text = text_ids(tmp_path / "a", ["", TEXT])
    plain = loaded(tmp_path / "b", files)(TEXT, add_special_tokens=False)["input_ids"]
    full = loaded(tmp_path / "c", before)(TEXT)["input_ids"]
    end = full[-1:] if full[-1] == number["</s>"] else []
    assert empty == [*tokens.values(), *end]
    assert text == [*tokens.values(), *plain, *end]


def test_a_post_processor_that_cannot_be_edited_is_refused(files):
    other = {"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0]}
    content = json.loads(files["tokenizer.json"]) | {"post_processor": other}
    with pytest.raises(UserError, match=r"post-processor \(RobertaProcessing\) is not a template"):
        edits.with_leading_tokens(files | {"tokenizer.json": json.dumps(content)}, {})
    with pytest.raises(UserError, match=r"the tokenizer has no tokenizer\.json"):
        edits.with_leading_tokens({"vocab.json": "{}"}, {})


MANY = [{"name": "default", "template": "old"}, {"name": "tool_use", "template": "older"}]
TEMPLATES = {
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


@pytest.mark.parametrize("template", [None, "new {{ messages[0]['content'] }}\n"])
@pytest.mark.parametrize("before", TEMPLATES)
def test_the_new_template_replaces_all_others(before, template, files, tmp_path):
    old = dict(files)
    for name, content in TEMPLATES[before].items():
        if isinstance(content, dict):
            content = json.dumps(json.loads(files[name]) | content)
        old[name] = content
    tokenizer = loaded(tmp_path, edits.with_template(old, template))
    assert tokenizer.chat_template == template
    assert tokenizer.eos_token == "</s>"
    if template:
        messages = [{"role": "user", "content": "x"}]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        assert text == "new x"  # Jinja drops the last newline


@pytest.mark.parametrize("form", ["a text", "a token", "a map", "no config"])
def test_a_role_is_given_to_another_token(form, files, tmp_path):
    old = dict(files)
    eos = {"__type": "AddedToken", "content": "</s>", "lstrip": False, "special": True}
    config = json.loads(files["tokenizer_config.json"])
    if form == "a token":
        old["tokenizer_config.json"] = json.dumps(config | {"eos_token": eos})
    if form == "a map":
        old["special_tokens_map.json"] = json.dumps({"eos_token": eos, "bos_token": "<s>"})
    if form == "no config":
        del old["tokenizer_config.json"]
    assert edits.has_token(old, "<|im_end|>")
    assert not edits.has_token(old, "the")
    changed = edits.with_token(old, "eos_token", "<|im_end|>")
    after, before = loaded(tmp_path / "new", changed), loaded(tmp_path / "old", old)
    assert after.eos_token == "<|im_end|>"
    assert after.bos_token == before.bos_token
    text = f"{TEXT}<|im_end|> and</s>"
    assert after(text)["input_ids"] == before(text)["input_ids"]
    if form == "a map":
        roles = json.loads(changed["special_tokens_map.json"])
        assert roles == {"eos_token": "<|im_end|>", "bos_token": "<s>"}


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
