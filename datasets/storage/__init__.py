"""Dataset files: written whole or not at all, read with suspicion.

hdf5          `read_file`, `save_dataset`, `peek_metadata`
reading       opening a file that may be anything
contents      the arrays in it, and what else there is
layouts       what a file has in place of an array that it lacks
diagnosis     why it cannot be read, and which command helps
provenance    when, by which command and from what a file was made
"""
