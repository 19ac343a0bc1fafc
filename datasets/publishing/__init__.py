"""Publishing a dataset: its folder with a card and checksums, and the way to a hub."""
