"""Reading drafters from every layout they were published in (`read.read_drafter`), and writing them in it (`write`)."""
