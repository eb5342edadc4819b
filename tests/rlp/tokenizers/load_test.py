"""Values of `data.tokenizer`, `data.bos`, `data.eos` and `data.separator`."""

import re

import pytest

from rlp.runtime.errors import UserError
from rlp.tokenizers.load import load_tokenizer
from tests.support.bpe_folder import make_folder


@pytest.mark.parametrize("field", ["bos", "eos", "separator"])
def test_a_token_that_does_not_exist_is_refused_by_its_name(tmp_path, field):
    folder = make_folder(tmp_path, eos_token="</s>")
    for name in ("<|nowhere|>", "north west", "日"):
        with pytest.raises(UserError, match=re.escape(f"data.{field}='{name}' is not one token")):
            load_tokenizer(folder, **{field: name})
    with pytest.raises(UserError, match=f"data.{field}='</s>'; the byte tokenizer has fixed"):
        load_tokenizer("bytes", **{field: "</s>"})


def test_a_path_that_is_not_a_folder_is_refused_and_never_looked_up(tmp_path):
    for spec in ("Qwen/Qwen3-1.7B", str(tmp_path / "none"), ""):
        with pytest.raises(UserError, match=f"data.tokenizer='{spec}' is not a folder"):
            load_tokenizer(spec)
