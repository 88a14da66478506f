"""What decides a training, as data. Without torch."""
