"""A shop: its home folder, settings, sources, calendar, models."""
