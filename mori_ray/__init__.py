"""mori for Ray."""
