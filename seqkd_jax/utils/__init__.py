"""What every room uses: files, progress, performance. No room of the package but `types` is imported here."""
