"""Training around the engine: trainers, FLOPs and cost, budgets, checkpoints."""
