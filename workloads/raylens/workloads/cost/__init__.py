"""What a run costs on a described cluster: hours, storage, requests and money."""
