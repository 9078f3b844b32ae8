"""Image to descriptors: the model of the paper."""
