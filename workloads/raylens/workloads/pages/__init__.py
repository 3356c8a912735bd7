"""What commands print: tables, lines about progress, and pages of text."""
