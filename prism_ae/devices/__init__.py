"""CPU slots and GPUs: which there are, and which are asked for."""
