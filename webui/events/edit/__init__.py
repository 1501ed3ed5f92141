"""Events of step 3, a file for each thing that is done to an edit: draft, place, begin, watch, compare, retake."""
