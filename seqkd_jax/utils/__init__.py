"""What every room uses: files, progress, programs, performance. No room of the package but `types` is imported here."""
