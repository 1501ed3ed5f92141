"""Many clips by one or more methods, on one machine or many."""
