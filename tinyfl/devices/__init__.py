"""Connected boards: ports, inventory, monitor, and pushing models to them."""
