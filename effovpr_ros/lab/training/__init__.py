"""Fine-tuning of a tail of the network on places of the user's own (paper section 3.3)."""
