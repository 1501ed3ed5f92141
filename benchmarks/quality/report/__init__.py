"""From the rows of results to the report page and the tables."""
