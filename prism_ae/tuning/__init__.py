"""The draft tree that decodes fastest on a device, and the batch size at which drafting stops paying (`tune`)."""
