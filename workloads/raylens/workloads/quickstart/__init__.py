"""The quickstart: from digit scans, which need no download, to a served model on one machine."""
