"""What `data.tokenizer` and the fields beside it may name."""

import re

import pytest

from rlp.runtime.errors import UserError
from rlp.tokenizers.load import load_tokenizer
from tests.support.bpe_folder import make_folder


@pytest.mark.parametrize("field", ["bos", "eos", "separator"])
def test_a_token_that_is_not_there_is_refused_by_its_name(tmp_path, field):
    folder = make_folder(tmp_path, eos_token="</s>")
    for name in ("<|nowhere|>", "north west", "日"):
        with pytest.raises(UserError, match=re.escape(f"data.{field}='{name}' is not one token")):
            load_tokenizer(folder, **{field: name})
    with pytest.raises(UserError, match=f"data.{field}='</s>'; bytes have tokens of their own"):
        load_tokenizer("bytes", **{field: "</s>"})


def test_a_path_that_is_no_folder_is_refused_and_never_looked_up(tmp_path):
    for spec in ("Qwen/Qwen3-1.7B", str(tmp_path / "none"), ""):
        with pytest.raises(UserError, match="no folder"):
            load_tokenizer(spec)
