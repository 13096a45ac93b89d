"""The statistics of a round: released so that nothing but one number per entry can be opened."""
