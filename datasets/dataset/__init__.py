"""What a dataset is.

schema        the arrays and metadata of the file format
validation    what can be wrong with them, in words
problems      one thing that is wrong with them
shapes        one row a transition, and what other layouts look like
nesting       columns within columns
constants     coordinates that never vary
hashing       hashes of arrays, by which content is known
in_memory     `OfflineDataset`: the arrays as tensors, the episodes as a table
access        what learning asks of a dataset, wherever it lies
sampling      random batches of its rows
sequences     what a row has to do with the rest of its episode
"""
