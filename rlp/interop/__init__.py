"""Formats of others: Hugging Face, GGUF; and what a run can start from."""
