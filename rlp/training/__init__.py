"""What surrounds a step: trainers, FLOPs and cost, budgets, checkpoints."""
