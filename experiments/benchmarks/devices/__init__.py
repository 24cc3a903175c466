"""What several devices gain on this machine: one module for training, one for decoding."""
