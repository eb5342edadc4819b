"""The parts of a run, built from its config."""

import pytest

from configs import default
from models.config import ModelConfig
from models.rope import Rope
from models.transformer import count_parameters
from rlp.run import assembly
from rlp.run.tokens import DEFAULT_PROMPT
from rlp.runtime.errors import UserError
from rlp.tokenizers.byte_tokenizer import ByteTokenizer
from tests.support import runs


def test_masked_thoughts_have_room_for_a_word_and_the_tag(text, monkeypatch):
    masked = lambda length: runs.config(
        runs.TEXT, text, {"batch_size": 8, "rlp.unclosed": "mask", "rlp.thought_length": length}
    )
    assembly.build(masked(2))
    with pytest.raises(UserError, match=r"rlp.thought_length=1 .* of 1 token .*length to 2"):
        assembly.build(masked(1))
    monkeypatch.setattr(ByteTokenizer, "think_close", (60, 47, 62))
    assembly.build(masked(4))
    with pytest.raises(UserError, match=r"rlp.thought_length=3 .* of 3 tokens .*length to 4"):
        assembly.build(masked(3))


def test_the_vocabulary_has_room_for_the_tokenizer_in_whole_blocks_of_64(text):
    for data, used, size in ((runs.TEXT | text, 261, 320), (runs.COMPASS, 50, 64)):
        run = assembly.build(runs.config(data, {"batch_size": 8})).method
        assert run.model.vocab_size == size
        assert run.tokenizer.vocab_size <= used
        for banned in (run.vocabulary.not_in_thoughts, run.vocabulary.not_in_documents):
            assert set(range(run.tokenizer.vocab_size, size)) <= set(banned)


def test_a_prompt_of_the_user_stands_in_front_of_the_document(tmp_path, text):
    (tmp_path / "prompt.txt").write_text("Think é first.\n")
    config = runs.config(runs.TEXT, text, {"batch_size": 8})
    prompts = {}
    for name in ("none", "default", str(tmp_path / "prompt.txt")):
        config.rlp.prompt = name
        run = assembly.build(config)
        prompts[name] = run.method.settings.prompt
    no_prompt, default_prompt, user_prompt = prompts.values()
    assert no_prompt == ()
    # The BOS of the row precedes the prompt, which does not contain another BOS.
    assert run.method.settings.bos == len(run.method.tokenizer.bos) == 1
    assert run.method.tokenizer.decode(user_prompt) == "Think é first.\n"
    assert run.method.tokenizer.decode(default_prompt) == DEFAULT_PROMPT


def test_keys_of_parameters_training_and_evaluation_differ_between_and_within_seeds():
    keys = [str(key) for seed in range(3) for key in assembly.root_keys(seed)]
    assert len(set(keys)) == 9


def test_model_fields_reach_the_model():
    config = default.get_config()
    values = {name: value for name, value in config.model.items() if name != "attention"}
    values |= {"vocab_size": 320, "num_layers": 3, "tie_embeddings": False, "remat": "dots"}
    config.model.update(values)
    config.model.rope.theta = 500.0
    config.data.train = "some"
    model = assembly.build(config).method.model
    assert model == ModelConfig(**values | {"rope": Rope(theta=500.0)})
    assert count_parameters(model) > 0
