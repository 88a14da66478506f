"""What is to be measured: cells from points, models and results, in an order for the workers."""
