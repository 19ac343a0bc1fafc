"""Training on a dataset that is larger than memory, to the same result, bit for bit.

memory      how much there is, and whether a dataset fits
cache       the packed rows beside a file, checked before they are used
building    how they are made from it
packed      reading rows here and there without holding the file
"""
