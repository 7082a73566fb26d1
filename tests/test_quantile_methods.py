"""Off-policy methods of return distributions: losses, targets, what they rank, and that quantiles stay apart."""
