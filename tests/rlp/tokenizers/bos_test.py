"""What stands before a text is what the tokenizer itself puts there."""

import json
from pathlib import Path

import pytest

from rlp.tokenizers.load import load_tokenizer
from tests.support.bpe_folder import make_folder

NAMED = {"eos_token": "</s>", "bos_token": "<s>", "pad_token": "<p>"}


def test_a_folder_that_states_its_bos_puts_it_also_where_transformers_does_not(tmp_path):
    """As it does not with files of DeepSeek-V3, whose class it replaces."""
    folder = Path(make_folder(tmp_path, **NAMED))
    path = folder / "tokenizer_config.json"
    for states, expected in ((True, ["<s>"]), (False, []), (None, [])):
        config = json.loads(path.read_text()) | {"add_bos_token": states}
        config |= {"tokenizer_class": "LlamaTokenizerFast"}
        path.write_text(json.dumps(config))
        one = load_tokenizer(str(folder))
        assert one.put_before == ()
        assert [one.decode([i]) for i in one.bos] == expected


def put_before(*names):
    """A post-processor that puts these tokens of `make_folder` before a text, and </s> behind."""
    from tokenizers import processors

    return lambda made: processors.TemplateProcessing(
        single=" ".join([*names, "$A", "</s>"]),
        special_tokens=[(name, made.token_to_id(name)) for name in [*names, "</s>"]],
    )


@pytest.mark.parametrize("names", [(), ("<s>",), ("<p>",), ("<p>", "<s>")], ids=str)
def test_what_stands_before_a_text_is_what_the_tokenizer_puts_there(tmp_path, names):
    """The name of its bos_token alone puts nothing anywhere; another token may be put there."""
    from transformers import AutoTokenizer

    folder = make_folder(tmp_path, before=put_before(*names) if names else None, **NAMED)
    one = load_tokenizer(folder)
    assert [one.decode([i]) for i in one.bos] == list(names)
    whole = AutoTokenizer.from_pretrained(folder)("north west")["input_ids"]
    assert [*one.bos, *one.encode("north west")] == whole[: len(whole) - bool(names)]
    assert load_tokenizer(folder, bos="none").bos == ()
    assert load_tokenizer(folder, bos="<s>").bos == tuple(one.encode("<s>"))
