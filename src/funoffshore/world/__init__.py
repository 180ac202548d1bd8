"""The only door to the outside. Foreign exceptions become ours in here and nowhere else."""
