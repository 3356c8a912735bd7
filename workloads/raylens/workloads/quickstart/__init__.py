"""The whole way on one machine, on real data that needs no download."""
