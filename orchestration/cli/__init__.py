"""The command `multitron`."""
