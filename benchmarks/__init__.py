"""Quality against rendered truth (`quality`, `edits`, `cuts`), speed and memory (`speed`), and LongV-EVAL (`longv`)."""
