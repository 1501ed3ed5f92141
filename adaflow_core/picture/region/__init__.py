"""A region of the picture: masks asked for, found and carried, and the crops that are edited."""
