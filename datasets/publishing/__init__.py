"""Publishing a dataset: its folder with a card and checksums, and the way to a hub.

folder          data, card, descriptions and checksums in one folder
release         what is published: a dataset with name, version, licence, author and files
cards           the README.md of a dataset, for readers
card_facts      what a card counts and reads off
quality         what a user should know before trusting it
croissant       the same for machines, in JSON-LD
hub             versions on the Hugging Face hub
hub_connection  who we are there, and what its errors mean
minari_remote   versions on Minari's remote
catalog         the table and pictures of DATASETS.md
"""
