"""Dataset files: written whole or not at all, read with suspicion.

hdf5          `read_file`, `save_dataset`, `peek_metadata`
reading       opening a file that may be anything
provenance    when, by which command and from what a file was made
"""
