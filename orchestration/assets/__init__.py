"""The assets, by the room of the house they live in."""
