"""The cost of a run on a described cluster: hours, storage, requests and money."""
