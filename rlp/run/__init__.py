"""From a config to a finished folder: checks, assembly, the loop, experiments, import, export."""
