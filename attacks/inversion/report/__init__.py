"""What a sweep found, as one HTML page that needs nothing beside it."""
