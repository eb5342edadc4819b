"""The networks: a Qwen3-shaped decoder, its attention, its caches and its shardings."""
