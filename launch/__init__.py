"""How to run it: one program per verb. Nothing imports this package but its own programs."""
