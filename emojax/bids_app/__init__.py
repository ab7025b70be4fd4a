"""A BIDS App: a BIDS data set in, BIDS derivatives with decoded events and reports out."""
