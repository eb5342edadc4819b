"""The metrics of a run: the catalogue, metrics.jsonl, TensorBoard events, and warnings.

Nothing here imports JAX, so reports and notebooks can use it without a device. Reading order:
`metric` (the record of one metric), `catalogue` (all metrics), `writer` and `metrics_file` (how
they are written and read), `watch` and `warning_rules` (the warnings that a run gives).
"""
