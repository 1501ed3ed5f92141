"""What the page's events do: a file for what each step of the page shows; `common/` is what they share."""
