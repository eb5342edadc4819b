"""Convert text to token ids and back: bytes, Hugging Face tokenizers, chat templates."""
