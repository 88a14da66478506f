"""Files: written atomically, read against a schema, told apart by digests."""
