"""Execution: one worker process per device, started, fed, watched and stopped by one parent."""
