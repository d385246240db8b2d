"""What an operator ordered about images: by command (orders) and in the configuration file (policy)."""
