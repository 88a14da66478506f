"""From results to numbers, intervals and verdicts: pure functions, without torch."""
