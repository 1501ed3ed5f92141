"""Quality against rendered truth (`quality`, `edits`), speed and memory (`speed`), and LongV-EVAL (`longv`)."""
