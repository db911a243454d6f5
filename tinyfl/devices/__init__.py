"""Boards that are connected: their ports, who answers there, and what is done with them."""
