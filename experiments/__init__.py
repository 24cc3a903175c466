"""The studies: each module is one, with its arms, scales and claims as data; `pipeline` runs their stages once."""
