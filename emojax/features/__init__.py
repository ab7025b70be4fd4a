"""Features: the computation of classifier inputs from a fold's cohort."""
