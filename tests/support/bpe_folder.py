"""A small byte-level BPE tokenizer in a folder."""

from pathlib import Path

import pytest

CORPUS = ["Mia faces north . She turns left .", "Now she faces west .", "naïve 日本語 ½ é"]


def make_folder(
    folder: Path, added=("<think>", "</think>", "<|endoftext|>"), before=None, **named
) -> str:
    """Write a small byte-level BPE tokenizer with transformers, and return its folder.

    Args:
      folder: The folder to write to.
      added: Names of added tokens that are not special.
      before: Returns the post-processor, given the tokenizer; None for no post-processor.
      named: Special tokens by role, such as eos_token.
    """
    transformers = pytest.importorskip("transformers")
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(CORPUS, trainer)
    bpe.add_tokens([AddedToken(name, special=False, normalized=False) for name in added])
    bpe.add_special_tokens(list(named.values()))
    if before:
        bpe.post_processor = before(bpe)
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, **named)
    wrapped.save_pretrained(folder)
    return str(folder)
