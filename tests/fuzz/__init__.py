"""The API under random calls: bytes are read as calls, and a naive model says what is right."""
