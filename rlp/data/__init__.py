"""Where documents come from: generated ones (`compass`) and text files (`text`), as batches."""
