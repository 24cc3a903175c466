"""How fast: decoding and training beside other toolkits, replicas beside separate runs."""
