"""Helpers without knowledge of shops or models: files, folders, locks, threads, top-k, settings, text."""
