"""Event types of sessions, shared by the raw formats, session preparation and the simulator."""

EVENT_TYPES = ("click", "cart", "order")
"""Every event type, in the order of its code in an Enum column: 0 is a click, 1 a cart, 2 an order."""
