"""Fixed datasets: the file format, loading, collection, exchange with other formats."""
