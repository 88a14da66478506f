"""The store: what was measured, append-only and checksummed, so that a finished cell is never lost nor run twice."""

from prism_ae.store.records import Record
from prism_ae.store.store import Attempt, AttemptOutcome, Store

__all__ = ["Attempt", "AttemptOutcome", "Record", "Store"]
