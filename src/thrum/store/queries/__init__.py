"""Queries on the projection; operations use `views`."""
