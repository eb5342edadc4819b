"""The networks: a decoder of layers of any kind, its attention, its caches and its shardings."""
