"""What a run measures: the catalogue of metrics, metrics.jsonl, and the warnings that follow.

Nothing here imports JAX, so a report and a notebook read it without a device. Reading order:
`metric` (what is said of one metric), `catalogue` (all of them), `writer` and `metrics_file` (how
they are kept), `watch` and `warning_rules` (what a run warns of).
"""
