"""Exchange with other dataset formats."""
