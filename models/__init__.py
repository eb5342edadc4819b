"""The network: a decoder of layers of any kind, with its attention, caches and shardings."""
