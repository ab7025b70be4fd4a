"""From a fold's cohort to what a classifier sees."""
