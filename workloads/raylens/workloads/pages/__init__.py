"""What commands print: tables, progress and pages of text."""
