"""Regions in this process: mapped, written, leased and let go."""
