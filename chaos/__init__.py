"""Faults, injected into nights of a small shop, with one question: are the tables those of an undisturbed night?"""
