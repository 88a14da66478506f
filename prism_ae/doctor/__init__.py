"""``prism-ae doctor``: troubles of this environment, named before anything is started. It changes nothing."""
