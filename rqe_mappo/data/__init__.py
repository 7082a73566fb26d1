"""From environments to trajectories: copies stepped together, worker processes, the collector."""
