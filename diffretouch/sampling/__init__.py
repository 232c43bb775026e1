"""What is sampled: the sweeps of c for each photo."""
