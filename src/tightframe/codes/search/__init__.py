"""Search for separated points: starts, smoothed objectives, descent, polish."""
