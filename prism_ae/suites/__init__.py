"""Suites: what there is to measure, as data. One TOML file per suite, read by `load.py` into `records.py`."""
