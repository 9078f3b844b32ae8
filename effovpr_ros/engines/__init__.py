"""Other runtimes that run the network in PyTorch's place."""
