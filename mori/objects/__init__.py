"""What users hold: shared arrays, containers, frames, bytes, and how they are written to and copied."""
