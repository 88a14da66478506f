"""Reading drafters from every layout they were published in (`read.read_drafter`)."""
