"""What goes between processes: references, the bytes of a part, and whom to tell how to pickle them."""
