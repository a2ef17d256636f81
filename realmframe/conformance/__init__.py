"""Floor 5: the conformance kit: golden vectors run against this implementation."""
