"""Engines: what measures cells. An engine never knows which figure asked."""
