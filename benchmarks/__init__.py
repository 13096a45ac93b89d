"""Scripts that print ratios against named peers or limits, measured in one run."""
