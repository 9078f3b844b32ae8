"""What a robot never runs: evaluation, benchmarks, training, simulation."""
