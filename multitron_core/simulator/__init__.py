"""A simulated shop whose truth is known, written in the raw formats."""
