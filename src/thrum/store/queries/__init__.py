"""What is asked of the projection; `views` is what operations see of it."""
