"""The command `seqkd`: options, checks across options, commands, and how they end. Above everything."""
