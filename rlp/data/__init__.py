"""Data sources that yield batches: the generated demo (`compass`), files (`text`), Python code."""
