"""The BOS of a text is whatever the tokenizer itself puts there."""

import json
from pathlib import Path

import pytest

from rlp.tokenizers.load import load_tokenizer
from tests.support.bpe_folder import make_folder

NAMED = {"eos_token": "</s>", "bos_token": "<s>", "pad_token": "<p>"}


def test_a_folder_that_declares_a_bos_has_it_even_if_transformers_ignores_it(tmp_path):
    """transformers ignores it for the files of DeepSeek-V3, because it uses another class."""
    folder = Path(make_folder(tmp_path, **NAMED))
    path = folder / "tokenizer_config.json"
    for declared, expected in ((True, ["<s>"]), (False, []), (None, [])):
        config = json.loads(path.read_text()) | {"add_bos_token": declared}
        config |= {"tokenizer_class": "LlamaTokenizerFast"}
        path.write_text(json.dumps(config))
        tokenizer = load_tokenizer(str(folder))
        assert tokenizer.default_bos == ()
        assert [tokenizer.decode([i]) for i in tokenizer.bos] == expected


def leading(*names):
    """Return a function that makes a post-processor with these tokens before a text, and </s>
    after it."""
    from tokenizers import processors

    return lambda backend: processors.TemplateProcessing(
        single=" ".join([*names, "$A", "</s>"]),
        special_tokens=[(name, backend.token_to_id(name)) for name in [*names, "</s>"]],
    )


@pytest.mark.parametrize("names", [(), ("<s>",), ("<p>",), ("<p>", "<s>")], ids=str)
def test_the_bos_is_what_the_tokenizer_puts_before_a_text(tmp_path, names):
    """A tokenizer may not use its bos_token, or may put another token before a text."""
    from transformers import AutoTokenizer

    folder = make_folder(tmp_path, before=leading(*names) if names else None, **NAMED)
    tokenizer = load_tokenizer(folder)
    assert [tokenizer.decode([i]) for i in tokenizer.bos] == list(names)
    expected = AutoTokenizer.from_pretrained(folder)("north west")["input_ids"]
    expected = expected[: len(expected) - bool(names)]  # without </s>
    assert [*tokenizer.bos, *tokenizer.encode("north west")] == expected
    assert load_tokenizer(folder, bos="none").bos == ()
    assert load_tokenizer(folder, bos="<s>").bos == tuple(tokenizer.encode("<s>"))
