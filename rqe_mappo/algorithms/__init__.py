"""The learners: RQE-MAPPO, its exact form, and what they are made of."""
