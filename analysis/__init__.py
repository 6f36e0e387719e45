"""Numerics of interbasis: from a network with cuts to the modules of its interaction graph."""
