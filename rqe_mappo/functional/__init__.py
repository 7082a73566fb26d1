"""Pure functions on tensors: return distributions, risk measures, targets and advantages, the policy gradient."""
