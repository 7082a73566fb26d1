"""Games in which everybody acts from the first step of an episode to its time limit."""
