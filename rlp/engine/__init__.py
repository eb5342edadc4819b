"""A training step on arrays: forks, branches, rollout, scoring, advantages, gradient, update."""
