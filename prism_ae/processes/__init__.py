"""Child processes, and how they end."""

DEATHS = 2
"""After so many deaths of processes over one piece of work it is not given to another: the work is what kills them."""
