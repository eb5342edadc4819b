"""Import and export of Hugging Face and GGUF models, and the sources that a run can start from."""
