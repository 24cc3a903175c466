"""`python -m seqkd_jax` is the command `seqkd`."""

from seqkd_jax.cli.main import main

if __name__ == "__main__":
    main(program="python -m seqkd_jax")
