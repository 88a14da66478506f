"""What the mini suite is, as data: corpus, recipes, the names of its models. Without torch."""
