"""Facts become rows: order-free, any number of times."""
