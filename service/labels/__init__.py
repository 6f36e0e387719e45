"""Labels in bulk: files of them, from other graphs and partitions, and from the user's own command."""
