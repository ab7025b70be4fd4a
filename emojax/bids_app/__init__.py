"""A BIDS App that turns a BIDS data set into derivatives with decoded events and reports."""
